// A search's parameters: as they stand in the address, and as POST /v1/search takes them.

export const WINDOW = 100; // passages that are ranked (BRAID_CANDIDATES); pages can't reach past them
export const PER_DOCUMENT = 3; // passages of one document, where no document is named
/** What can be filtered by, as the service wrote it into the form: name, and kind (choices, range, or a list's type). */
const FILTERS = [...document.querySelectorAll("[data-filter]")].map(({ dataset }) => ({ name: dataset.filter, kind: dataset.kind }));
export const NOT = "not."; // begins the names of what is left out
export const DEFAULTS = { mode: "hybrid", fusion: "linear", size: 10, from: 0 };

/** The request body for the parameters of an address. Values that are not ours to judge go to the service, which does. */
export function requestBody(params) {
  const mode = params.get("mode") ?? DEFAULTS.mode;
  const method = params.get("fusion") ?? DEFAULTS.fusion;
  const body = { query: params.get("q") ?? "", mode, size: number(params, "size"), from: number(params, "from") };
  if (mode === "hybrid") {
    body.fusion = { method };
    if (method === "linear" && params.has("alpha")) body.fusion.alpha = Number(params.get("alpha"));
  }
  const filter = {};
  for (const { name, kind } of FILTERS) {
    const values = kind === "range" ? bounds(params, name) : params.getAll(name).map(kind === "integer" ? integer : String);
    if (Object.keys(values).length === 0) continue;
    if (name.startsWith(NOT)) (filter.not ??= {})[name.slice(NOT.length)] = values;
    else filter[name] = values;
  }
  if (Object.keys(filter).length > 0) body.filter = filter;
  if (params.has("explain")) body.explain = true;
  body.fold_duplicates = true;
  if (!filter.document_id) body.max_per_document = PER_DOCUMENT;
  return body;
}

/** The parameter that holds a bound of a range; that of the time is named by the bound alone. */
export function boundName(name, bound) {
  return name === "timestamp" ? bound : `${name}.${bound}`;
}

function bounds(params, name) {
  const given = ["gte", "lte"].map((bound) => [bound, params.get(boundName(name, bound))]);
  return Object.fromEntries(given.filter(([, value]) => value));
}

/** What is no number stays as it is. */
function integer(value) {
  return /^-?\d+$/.test(value) ? Number(value) : value;
}

function number(params, name) {
  return params.has(name) ? Number(params.get(name)) : DEFAULTS[name];
}

/** How many filters are set. */
export function filterCount(params) {
  const counts = FILTERS.map(({ name, kind }) => (kind === "range" ? Object.keys(bounds(params, name)) : params.getAll(name)).length);
  return counts.reduce((sum, count) => sum + count, 0);
}

/** The parameters with `tag` added as a filter, from the first page on. */
export function withTag(params, tag) {
  const changed = new URLSearchParams(params);
  if (!changed.getAll("topic_tags").includes(tag)) changed.append("topic_tags", tag);
  changed.delete("from");
  return changed;
}
