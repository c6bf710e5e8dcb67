// The document panel: a document's passages, the cited one in sight, its quote marked.
import { storedDocument } from "./api.js";
import { announce, byId, fill, h } from "./dom.js";
import { findQuote, markQuote } from "./highlight.js";
import { ProblemError, renderProblem } from "./problems.js";
import { day, pageName } from "./results.js";

const COVERS = matchMedia("(max-width: 64rem)"); // as in content.css: below it the panel covers the page

export class DocumentPanel {
  /** `close()` is what the close button and Esc do. */
  constructor(close) {
    this.panel = byId("panel");
    this.title = byId("panel-title");
    this.meta = byId("panel-meta");
    this.body = byId("panel-body");
    this.opener = null;
    this.stored = null;
    this.controller = null;
    byId("panel-close").addEventListener("click", close);
    COVERS.addEventListener("change", () => this.cover());
  }

  get isOpen() {
    return !this.panel.hidden;
  }

  /** Show a document, at a passage and its quote where given. */
  async open(documentId, passageId, quote) {
    if (!this.isOpen) this.opener = document.activeElement;
    this.panel.hidden = false;
    document.body.classList.add("with-panel");
    this.cover();
    this.controller?.abort();
    const known = this.stored?.document_id === documentId && (!passageId || this.stored.passages.some((passage) => passage.id === passageId));
    if (known) {
      this.draw(this.stored, passageId, quote);
      return;
    }
    const controller = new AbortController();
    this.controller = controller;
    this.stored = null;
    this.title.textContent = documentId;
    fill(this.meta);
    fill(this.body, h("p", { class: "state" }, "Loading the document"));
    this.title.focus({ preventScroll: true });
    try {
      const stored = await storedDocument(documentId, controller.signal);
      if (controller.signal.aborted) return;
      this.stored = stored;
      this.draw(stored, passageId, quote);
    } catch (error) {
      if (controller.signal.aborted) return;
      if (!(error instanceof ProblemError)) throw error;
      fill(this.body, renderProblem(error.problem, () => this.open(documentId, passageId, quote)));
    }
  }

  /** Close; focus goes back to what opened it. */
  hide() {
    if (!this.isOpen) return;
    this.controller?.abort();
    this.panel.hidden = true;
    document.body.classList.remove("with-panel");
    this.cover();
    if (this.opener?.isConnected) this.opener.focus({ preventScroll: true });
    this.opener = null;
  }

  /** Where the panel covers the page, what lies under it can't be reached. */
  cover() {
    const covered = this.isOpen && COVERS.matches;
    byId("bar").inert = covered;
    byId("main").inert = covered;
  }

  draw(stored, passageId, quote) {
    this.title.textContent = stored.title || stored.document_id;
    fill(this.meta, this.facts(stored));
    const there = stored.passages.find((passage) => passage.id === passageId);
    // a document that was ingested anew has new passage ids: the quote still finds its place
    const target = there ?? (quote ? stored.passages.find((passage) => findQuote(passage.text, quote)) : undefined);
    const replaced = passageId && !there
      ? h("p", { class: "notice" }, "The passage that this link names is no longer in the document; it was ingested anew since.")
      : null;
    fill(this.body, replaced, this.passages(stored, target, quote));
    this.title.focus({ preventScroll: true });
    const element = this.body.querySelector("[aria-current]");
    (element?.querySelector("mark") ?? element)?.scrollIntoView({ block: "center" });
    if (!element) this.body.scrollTop = 0;
    announce(`${this.title.textContent}${target ? `, passage ${target.position + 1} of ${stored.passages.length}` : ""}`);
  }

  facts(stored) {
    const parts = [stored.source_id, stored.source_type, stored.timestamp ? day(stored.timestamp) : null].filter(Boolean);
    const uri = stored.uri ?? "";
    const address = /^https?:\/\//i.test(uri) ? h("a", { href: uri, rel: "noopener noreferrer", target: "_blank" }, uri) : uri;
    return [parts.join(" · "), uri ? h("span", { class: "uri" }, address) : null];
  }

  passages(stored, target, quote) {
    const nodes = [];
    let heading = null;
    let page = null;
    for (const passage of stored.passages) {
      if (Number.isInteger(passage.page) && passage.page !== page) {
        page = passage.page;
        nodes.push(h("p", { class: "page-mark" }, pageName(page, stored.source_type)));
      }
      if (passage.section_heading && passage.section_heading !== heading) {
        heading = passage.section_heading;
        nodes.push(h("h3", {}, heading));
      }
      const current = passage === target;
      nodes.push(
        h(
          "div",
          { class: "passage", id: `passage-${passage.id}`, "aria-current": current ? "location" : null },
          h("p", { class: "text" }, current ? markQuote(passage.text, quote) : passage.text),
        ),
      );
    }
    return nodes;
  }
}
