// The Search tab: what was found, page by page, with scores and timings.
import { search } from "./api.js";
import { announce, byId, fill, h } from "./dom.js";
import { resultVote } from "./feedback.js";
import { queryTerms } from "./highlight.js";
import { ProblemError, renderDegraded, renderProblem } from "./problems.js";
import { PER_DOCUMENT, WINDOW, requestBody, withTag } from "./query.js";
import { resultItem } from "./results.js";
import { tabHash } from "./router.js";
import { SearchForm } from "./searchform.js";
import { renderTimings } from "./timings.js";

/** `actions`: go(hash), open(passage). */
export class SearchView {
  constructor(actions) {
    this.actions = actions;
    this.output = byId("search-output");
    this.shown = null;
    this.params = new URLSearchParams();
    this.controller = null;
    this.form = new SearchForm((params) => {
      this.shown = null; // the same search may be run again
      actions.go(tabHash("search", params));
    });
    this.box = this.form.box;
  }

  get title() {
    return this.params.get("q");
  }

  /** Show the search that the address names; it is run unless it is the one already shown. */
  show(params) {
    const key = params.toString();
    if (key === this.shown) return;
    this.shown = key;
    this.params = params;
    this.form.fill(params);
    this.controller?.abort();
    if ((params.get("q") ?? "").trim()) this.run(params);
    else fill(this.output, h("p", { class: "intro" }, "Search finds passages by their words, by their meaning, or by both."));
  }

  async run(params) {
    const controller = new AbortController();
    this.controller = controller;
    this.output.setAttribute("aria-busy", "true");
    try {
      const body = requestBody(params);
      const found = await search(body, controller.signal);
      if (this.controller !== controller) return;
      this.draw(body, found);
      announce(`${counted(found)} found`);
    } catch (error) {
      if (controller.signal.aborted) return;
      if (!(error instanceof ProblemError)) throw error;
      fill(this.output, renderProblem(error.problem, () => this.run(params)));
    } finally {
      if (this.controller === controller) {
        this.controller = null;
        this.output.removeAttribute("aria-busy");
      }
    }
  }

  draw(body, found) {
    const terms = queryTerms(body.query);
    const options = {
      terms,
      scores: true,
      open: (result) => this.actions.open(result, null),
      tag: (name) => this.actions.go(tabHash("search", withTag(this.params, name))),
    };
    const items = found.results.map((result, index) =>
      resultItem(result, { ...options, rank: String(body.from + index + 1), vote: resultVote(found.query_id, result, index) }),
    );
    fill(
      this.output,
      h("p", { class: "count", id: "result-count" }, count(body, found)),
      renderDegraded(found.degraded),
      found.explanation ? explanation(found.explanation) : null,
      renderTimings(found.timings, Boolean(body.explain)),
      items.length > 0 ? h("ol", { class: "results" }, items) : nothing(body),
      leftOut(body, found),
      this.pages(body, found),
    );
  }

  pages(body, found) {
    const limit = ended(body, found) ? body.from + found.results.length : Math.min(found.total, WINDOW);
    const next = body.from + body.size;
    if (body.from === 0 && next >= limit) return null;
    const turn = (label, from, possible) =>
      h("button", { class: "secondary", type: "button", disabled: !possible, on: { click: () => this.turn(from) } }, label);
    return h(
      "nav",
      { class: "pages", "aria-label": "Result pages" },
      turn("Previous", Math.max(0, body.from - body.size), body.from > 0),
      h("span", { class: "meta" }, next >= WINDOW && found.total > WINDOW ? `The best ${WINDOW} are ranked` : `Page ${Math.floor(body.from / body.size) + 1}`),
      turn("Next", next, next < limit && next + body.size <= WINDOW),
    );
  }

  turn(from) {
    const params = new URLSearchParams(this.params);
    if (from > 0) params.set("from", String(from));
    else params.delete("from");
    this.actions.go(tabHash("search", params));
    scrollTo({ top: 0 });
    this.box.focus({ preventScroll: true });
  }
}

/** The number of matches, which is a lower bound where the service did not count them all. */
function counted(found) {
  const least = found.total_relation === "gte" ? "at least " : "";
  return `${least}${found.total} ${found.total === 1 ? "passage" : "passages"}`;
}

function count(body, found) {
  if (found.total === 0) return "No passages found";
  const last = body.from + found.results.length;
  const range = found.results.length > 0 && found.total > found.results.length ? `${body.from + 1}–${last} of ` : "";
  return `${range}${counted(found)}`;
}

/** Whether the list ends here: passages that were left out (folded, or too many of a document) are counted in `total`. */
function ended(body, found) {
  return found.results.length < body.size;
}

/** Says that there are passages which the list leaves out, where it ends before their number. */
function leftOut(body, found) {
  const last = body.from + found.results.length;
  if (found.results.length === 0 || !ended(body, found) || last >= Math.min(found.total, WINDOW)) return null;
  const bounded = body.max_per_document ? `, and of each document the best ${PER_DOCUMENT}: open it to read the rest` : "";
  return h("p", { class: "meta left-out" }, `Passages that are nearly the same are shown once${bounded}.`);
}

function nothing(body) {
  return h("p", { class: "intro" }, body.from > 0 ? "No passages on this page; go back to an earlier one." : body.filter ? "Nothing matches with these filters. Remove some, or try other words." : "Nothing matches. Try other words.");
}

function explanation(explained) {
  const fusion = explained.fusion ? Object.entries(explained.fusion).map(([name, value]) => `${name.replaceAll("_", " ")} ${value}`).join(", ") : null;
  const rows = [
    ["Way", explained.way],
    ["Because", explained.reason],
    ["Candidates", explained.candidates],
    ["Fusion", fusion],
  ].filter(([, value]) => value !== undefined && value !== null);
  return h("dl", { class: "explanation" }, rows.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, String(value)))));
}
