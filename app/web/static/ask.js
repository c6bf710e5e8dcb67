// The Ask tab: a question, its answer as it streams in, its sources.
import { streamAnswer } from "./api.js";
import { answerNodes } from "./answertext.js";
import { announce, byId, fill, h } from "./dom.js";
import { answerVote, resultVote } from "./feedback.js";
import { queryTerms } from "./highlight.js";
import { ProblemError, renderDegraded, renderProblem } from "./problems.js";
import { pageName, resultItem } from "./results.js";
import { tabHash } from "./router.js";
import { renderTimings } from "./timings.js";

/** One question's way on the screen. */
class Exchange {
  constructor(question, actions) {
    this.actions = actions;
    this.terms = queryTerms(question);
    this.text = "";
    this.citations = new Map();
    this.results = [];
    this.queryId = null; // known once the answer is finished
    this.drawing = false;
    this.state = h("p", { class: "state" }, "Searching the documents");
    this.notices = h("div", {});
    this.body = h("div", { class: "answer-text", id: "answer-text", "aria-live": "polite", "aria-busy": "true" });
    this.sources = h("section", { class: "sources", "aria-labelledby": "sources-title" });
    this.foot = h("div", { class: "answer-foot" });
    this.element = h("article", { class: "answer" }, this.state, this.body, this.notices, this.foot, this.sources);
    this.sources.hidden = true;
  }

  retrieval(data) {
    this.results = data.results ?? [];
    this.state.textContent = "Writing the answer";
    this.drawSources();
  }

  token(data) {
    this.text += data.text ?? "";
    this.drawSoon();
  }

  citation(data) {
    this.citations.set(data.marker, data);
    this.drawSoon();
  }

  done(data) {
    // the service's own words for "no answer" say no more than the notice does; a language model's may
    this.text = data.abstained && data.model === "extractive" ? "" : (data.answer ?? "");
    this.results = data.results ?? this.results;
    this.queryId = data.query_id ?? null;
    this.citations = new Map((data.citations ?? []).map((citation) => [citation.marker, citation]));
    this.finish();
    if (data.abstained || this.text === "") this.body.prepend(abstention(data, this.results.length));
    const degraded = renderDegraded(data.degraded);
    if (degraded) this.notices.append(degraded);
    if (data.model === "extractive" && !data.abstained && !generationFailed(data)) this.notices.append(extractiveHint());
    fill(this.foot, facts(data), data.abstained || this.text === "" ? null : answerVote(this.queryId), renderTimings(data.timings));
  }

  stopped() {
    this.finish();
    this.notices.prepend(h("p", { class: "notice" }, "Stopped. What had arrived by then is shown."));
  }

  failed(problem, retry) {
    this.finish();
    this.notices.prepend(renderProblem(problem, retry));
  }

  finish() {
    this.state.remove();
    this.draw();
    this.drawSources();
    this.body.setAttribute("aria-busy", "false");
    this.element.classList.add("complete");
  }

  drawSoon() {
    if (this.drawing) return;
    this.drawing = true;
    requestAnimationFrame(() => {
      this.drawing = false;
      if (this.body.getAttribute("aria-busy") === "true") this.draw();
    });
  }

  draw() {
    const marks = () => [...this.body.querySelectorAll(".mark")];
    const focused = marks().indexOf(document.activeElement);
    fill(this.body, answerNodes(this.text, (marker) => this.mark(marker)));
    if (focused >= 0) marks()[focused]?.focus({ preventScroll: true });
  }

  mark(marker) {
    const citation = this.citations.get(marker);
    if (!citation) return null;
    const result = this.results[marker - 1]; // the quote may be from a passage beside it
    const page = pageName(citation.page, result?.source_type);
    const label = `Citation ${marker}${page ? `, ${page.toLowerCase()}` : ""}: ${result?.title || "open the passage"}`;
    const title = [citation.quote, page].filter(Boolean).join("\n");
    const open = () => this.actions.open({ ...result, ...citation }, citation.quote);
    const disabled = !(result?.document_id ?? citation.document_id);
    return h("button", { class: "mark", type: "button", title, "aria-label": label, disabled, on: { click: open } }, String(marker));
  }

  drawSources() {
    this.sources.hidden = this.results.length === 0;
    const quoteOf = (id) => [...this.citations.values()].find((citation) => citation.id === id)?.quote ?? null;
    const items = this.results.map((result, index) =>
      resultItem(result, {
        terms: this.terms,
        markers: this.citations.has(index + 1) ? [String(index + 1)] : [],
        quoted: this.citations.get(index + 1)?.page ?? result.page,
        vote: resultVote(this.queryId, result, index),
        open: (opened) => this.actions.open(opened, quoteOf(opened.id)),
        tag: this.actions.tag,
      }),
    );
    fill(this.sources, h("h2", { id: "sources-title" }, "Sources"), h("ol", { class: "results" }, items));
  }
}

/** Whether a language model is connected but did not do its work: then the answer is quoted too. */
function generationFailed(data) {
  return (data.degraded ?? []).some((item) => item.stage === "generation");
}

function abstention(data, found) {
  if (generationFailed(data) && !data.abstained) {
    return h("p", { class: "notice abstained" }, "No answer was written, because the language model failed. The passages that were found are below.");
  }
  return h(
    "p",
    { class: "notice abstained" },
    h("strong", {}, "No answer. "),
    found > 0
      ? "The passages that were found do not say enough about this question to answer it; they are listed below."
      : "Nothing in the documents matches this question.",
  );
}

function extractiveHint() {
  return h(
    "p",
    { class: "notice hint" },
    "No language model is connected, so answers are made of sentences quoted from your documents. To connect one, set ",
    h("code", {}, "BRAID_LLM_URL"),
    " to an OpenAI-compatible endpoint, or start with ",
    h("code", {}, "braid up --llm URL"),
    " or ",
    h("code", {}, "braid up --llm local"),
    ".",
  );
}

function facts(data) {
  const cached = data.cache && data.cache !== "miss" && data.cache !== "off" ? `from the cache (${data.cache})` : null;
  const tokens = Number.isInteger(data.usage?.total_tokens) ? `${data.usage.total_tokens} tokens` : null;
  return h("p", { class: "meta" }, [data.model ? `Model ${data.model}` : null, tokens, cached].filter(Boolean).join(" · "));
}

/** `actions`: go(hash), open(passage, quote), tag(name, question). */
export class AskView {
  constructor(actions) {
    this.actions = actions;
    this.box = byId("ask-box");
    this.output = byId("ask-output");
    this.shown = null;
    this.controller = null;
    byId("ask-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.submit();
    });
    byId("ask-stop").addEventListener("click", () => this.controller?.abort());
    this.box.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      this.submit();
    });
    this.box.addEventListener("input", () => this.grow());
  }

  submit() {
    const question = this.box.value.trim();
    if (!question) {
      this.box.focus();
      return;
    }
    this.shown = null; // the same question may be asked again
    this.actions.go(tabHash("ask", new URLSearchParams({ q: question })));
  }

  /** Show the question that the address names; it is asked unless it is the one already shown. */
  show(params) {
    const question = params.get("q") ?? "";
    if (question === this.shown) return;
    this.shown = question;
    this.box.value = question;
    this.grow();
    this.controller?.abort();
    if (question.trim()) this.run(question);
    else fill(this.output, intro());
  }

  get title() {
    return this.shown;
  }

  grow() {
    this.box.style.blockSize = "auto";
    this.box.style.blockSize = `${Math.min(this.box.scrollHeight + 2, 220)}px`;
  }

  async run(question) {
    const controller = new AbortController();
    this.controller = controller;
    const exchange = new Exchange(question, { open: this.actions.open, tag: (name) => this.actions.tag(name, question) });
    fill(this.output, exchange.element);
    this.busy(true);
    announce("Searching the documents");
    try {
      for await (const { event, data } of streamAnswer({ query: question }, controller.signal)) {
        if (this.controller !== controller) return;
        controller.signal.throwIfAborted(); // what the browser had received already is not stopped by the signal
        if (event === "retrieval") exchange.retrieval(data);
        else if (event === "token") exchange.token(data);
        else if (event === "citation") exchange.citation(data);
        else if (event === "done") exchange.done(data);
      }
      announce(`Answer complete, ${exchange.citations.size} citations, ${exchange.results.length} sources`);
    } catch (error) {
      if (controller.signal.aborted) exchange.stopped();
      else if (error instanceof ProblemError) exchange.failed(error.problem, () => this.run(question));
      else throw error;
      announce(controller.signal.aborted ? "Stopped" : "");
    } finally {
      if (this.controller === controller) {
        this.controller = null;
        this.busy(false);
      }
    }
  }

  busy(on) {
    const stop = byId("ask-stop");
    const submit = byId("ask-submit");
    const hadFocus = document.activeElement === (on ? submit : stop);
    stop.hidden = !on;
    submit.hidden = on;
    if (hadFocus) (on ? stop : submit).focus();
  }
}

function intro() {
  return h(
    "div",
    { class: "intro" },
    h("p", {}, "Answers are written from your own documents, and every statement is cited. Open a citation to read the passage it rests on."),
    h(
      "p",
      { class: "meta keys" },
      h("span", {}, h("kbd", {}, "/"), " to the box"),
      h("span", {}, h("kbd", {}, "Enter"), " asks"),
      h("span", {}, h("kbd", {}, "Shift Enter"), " new line"),
      h("span", {}, h("kbd", {}, "Esc"), " closes a document"),
    ),
  );
}
