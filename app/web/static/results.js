// One passage as it is listed, in Search and below an answer.
import { h, isPlainClick } from "./dom.js";
import { markWords } from "./highlight.js";
import { documentHash } from "./router.js";

const SCORES = [
  ["lexical", "Lexical"],
  ["dense", "Dense"],
  ["fused", "Fused"],
  ["rerank", "Rerank"],
];

const PAGE_NAMES = { pptx: "Slide", odp: "Slide", xlsx: "Sheet", ods: "Sheet" };

/** "Page 3", "Slide 3" or "Sheet 3"; null where there are no pages. */
export function pageName(page, type) {
  return Number.isInteger(page) ? `${PAGE_NAMES[type] ?? "Page"} ${page}` : null;
}

/** Where in its document: section heading and page, or slide; and the page that is quoted, where that is another. */
export function whereParts({ title, section_heading: heading, page, source_type: type }, quoted = null) {
  const other = quoted === page ? null : pageName(quoted, type);
  return [heading === title ? null : heading, pageName(page, type), other ? `quoted from ${other.toLowerCase()}` : null].filter(Boolean);
}

/** A score with as many digits as tell it apart. */
export function score(value) {
  return value === 0 || Math.abs(value) >= 0.001 ? value.toFixed(Math.abs(value) >= 10 ? 2 : 3) : value.toExponential(1);
}

/** The day of a time stamp; a stamp that can't be read is shown as it is. */
export function day(timestamp) {
  const date = new Date(timestamp);
  // UTC: a bare date is midnight UTC and must not become the day before
  return Number.isNaN(date.getTime()) ? timestamp : new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeZone: "UTC" }).format(date);
}

/** A link that opens a passage in the document panel; a modified click opens it as any link. */
export function passageLink(result, open, attributes, ...children) {
  const follow = (event) => {
    if (!isPlainClick(event)) return;
    event.preventDefault();
    open(result);
  };
  return h("a", { ...attributes, href: documentHash(result.document_id, result.id), on: { click: follow } }, ...children);
}

/**
 * A list item. `options`: terms (stems to mark), rank or marker (shown before the title), quoted (page that is cited),
 * open(result), tag(name), scores (whether to show them), vote (buttons).
 */
export function resultItem(result, { terms, rank, markers = [], quoted = null, open, tag, scores = false, vote = null }) {
  const same = result.duplicates?.length ?? 0;
  const shown = scores ? SCORES.filter(([name]) => Number.isFinite(result.scores?.[name])) : [];
  return h(
    "li",
    { class: markers.length > 0 ? "result cited" : "result", "data-id": result.id },
    h(
      "div",
      { class: "result-head" },
      rank ? h("span", { class: "rank", "aria-hidden": "true" }, rank) : null,
      markers.map((marker) => h("span", { class: "marker" }, h("span", { class: "hidden" }, "Cited as "), marker)),
      h("h3", {}, passageLink(result, open, {}, result.title || result.document_id)),
      scores && Number.isFinite(result.score) ? h("span", { class: "score number", title: "Score" }, score(result.score)) : null,
    ),
    h("p", { class: "where" }, whereParts(result, quoted).join(" · ")),
    h("p", { class: "text" }, markWords(result.text ?? "", terms)),
    h(
      "div",
      { class: "meta result-meta" },
      [result.source_id, result.source_type, result.timestamp ? day(result.timestamp) : null].filter(Boolean).join(" · "),
      same > 0 ? h("span", { class: "same" }, `and ${same} nearly the same`) : null,
      (result.topic_tags ?? []).map((name) =>
        h("button", { class: "tag", type: "button", title: `Only passages tagged ${name}`, on: { click: () => tag(name) } }, name),
      ),
      vote,
    ),
    shown.length > 0
      ? h("dl", { class: "scores" }, shown.map(([name, label]) => h("div", {}, h("dt", {}, label), h("dd", { class: "number" }, score(result.scores[name])))))
      : null,
  );
}
