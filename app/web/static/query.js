// A search's parameters: as they stand in the address, and as POST /v1/search takes them.

export const WINDOW = 100; // passages that are ranked (BRAID_CANDIDATES); pages can't reach past them
export const PER_DOCUMENT = 3; // passages of one document, where no document is named
export const LISTS = ["source_id", "source_type", "topic_tags", "document_id"];
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
  for (const name of LISTS) {
    const values = params.getAll(name);
    if (values.length > 0) filter[name] = values;
  }
  const bounds = {};
  for (const bound of ["gte", "lte"]) if (params.get(bound)) bounds[bound] = params.get(bound);
  if (Object.keys(bounds).length > 0) filter.timestamp = bounds;
  if (Object.keys(filter).length > 0) body.filter = filter;
  if (params.has("explain")) body.explain = true;
  body.fold_duplicates = true;
  if (!filter.document_id) body.max_per_document = PER_DOCUMENT;
  return body;
}

function number(params, name) {
  return params.has(name) ? Number(params.get(name)) : DEFAULTS[name];
}

/** How many filters are set. */
export function filterCount(params) {
  const listed = LISTS.reduce((sum, name) => sum + params.getAll(name).length, 0);
  return listed + ["gte", "lte"].filter((name) => params.get(name)).length;
}

/** The parameters with `tag` added as a filter, from the first page on. */
export function withTag(params, tag) {
  const changed = new URLSearchParams(params);
  if (!changed.getAll("topic_tags").includes(tag)) changed.append("topic_tags", tag);
  changed.delete("from");
  return changed;
}
