// What each stage took, as a table with bars.
import { h } from "./dom.js";

const STAGES = [
  ["query_encode_ms", "Encode query"],
  ["retrieve_ms", "Retrieve"],
  ["hybrid_ms", "Hybrid search"],
  ["lexical_ms", "Lexical leg"],
  ["vector_ms", "Vector leg"],
  ["opensearch_took_ms", "OpenSearch took"],
  ["rerank_ms", "Rerank"],
  ["gen_ms", "Generate"],
];
const WITHIN_RETRIEVE = new Set(["hybrid_ms", "lexical_ms", "vector_ms", "opensearch_took_ms"]);

let open = false; // as the user left it: the table is drawn anew with every answer

/** Milliseconds for people. */
export function ms(value) {
  if (value >= 10_000) return `${(value / 1000).toFixed(1)} s`;
  return `${value >= 100 ? value.toFixed(0) : value.toFixed(1)} ms`;
}

/** A disclosure with the total in its heading; null when nothing was measured. `show` opens it. */
export function renderTimings(timings, show = false) {
  const known = Object.entries(timings ?? {}).filter(([, value]) => Number.isFinite(value));
  if (known.length === 0) return null;
  const all = new Map(known);
  const total = all.get("total_ms") ?? Math.max(...all.values());
  const named = STAGES.filter(([name]) => all.has(name));
  const listed = new Set([...named.map(([name]) => name), "total_ms"]);
  const others = [...all.keys()].filter((name) => !listed.has(name)).map((name) => [name, name.replace(/_ms$/, "").replaceAll("_", " ")]);
  const rows = [...named, ...others].map(([name, label]) => row(label, all.get(name), total, WITHIN_RETRIEVE.has(name)));
  const details = h(
    "details",
    { class: "timings", open: open || show },
    h("summary", {}, "Timings ", h("span", { class: "number" }, ms(total))),
    h("table", {}, h("caption", { class: "hidden" }, "Time taken by each stage"), h("tbody", {}, rows, row("Total", total, total, false, true))),
  );
  details.querySelector("summary").addEventListener("click", () => {
    open = !details.open;
  });
  return details;
}

function row(label, value, total, nested, last = false) {
  const bar = h("span", { class: "bar-fill" });
  bar.style.inlineSize = `${Math.min(100, total > 0 ? (100 * value) / total : 0).toFixed(1)}%`;
  return h(
    "tr",
    { class: [nested ? "nested" : "", last ? "total" : ""].join(" ").trim() || null },
    h("th", { scope: "row" }, label),
    h("td", { class: "bar-cell", "aria-hidden": "true" }, h("span", { class: "bar-track" }, bar)),
    h("td", { class: "number" }, ms(value)),
  );
}
