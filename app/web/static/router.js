// The address of what is shown: #ask?q=…, #search?q=…&…, #document/<document id>/<passage id>.

const TABS = new Set(["ask", "search"]);

/** Read a hash; anything that is no address of ours is the Ask tab. */
export function parse(hash) {
  const text = hash.replace(/^#/, "");
  if (text.startsWith("document/")) {
    try {
      const [documentId, passageId] = text.slice("document/".length).split("/").map(decodeURIComponent);
      if (documentId) return { view: "document", documentId, passageId: passageId || null };
    } catch (error) {
      if (!(error instanceof URIError)) throw error; // a mistyped %-escape
    }
  }
  const [name, query] = split(text);
  return TABS.has(name) ? { view: name, params: new URLSearchParams(query) } : { view: "ask", params: new URLSearchParams() };
}

function split(text) {
  const at = text.indexOf("?");
  return at < 0 ? [text, ""] : [text.slice(0, at), text.slice(at + 1)];
}

/** The hash of a tab; empty parameters are left out. */
export function tabHash(view, params = new URLSearchParams()) {
  const query = params.toString();
  return query ? `#${view}?${query}` : `#${view}`;
}

/** The hash of a passage in its document. */
export function documentHash(documentId, passageId) {
  const parts = [documentId, passageId].filter(Boolean).map(encodeURIComponent);
  return `#document/${parts.join("/")}`;
}

/**
 * The one holder of the page's address. `show(route, state)` is called for every change; a document's state holds
 * `under`, the hash of the tab that it lies over, and the cited `quote`.
 */
export class Router {
  #show;
  #closing = false;

  constructor(show) {
    this.#show = show;
  }

  start() {
    addEventListener("popstate", () => {
      this.#closing = false;
      this.#dispatch();
    });
    this.#dispatch();
  }

  get route() {
    return parse(location.hash);
  }

  /** Go to a tab's hash. */
  go(hash) {
    if (hash !== location.hash) history.pushState(null, "", hash);
    this.#dispatch();
  }

  /** Open a document over the tab that is shown; a document that is open already gives way, so that one step back closes it. */
  openDocument(documentId, passageId, quote = null) {
    const open = this.route.view === "document";
    const under = open ? (history.state?.under ?? null) : location.hash || "#ask";
    const hash = documentHash(documentId, passageId);
    if (open) history.replaceState({ under, quote }, "", hash);
    else history.pushState({ under, quote }, "", hash);
    this.#dispatch();
  }

  /** Leave the document for the tab under it. */
  closeDocument() {
    if (this.route.view !== "document" || this.#closing) return;
    if (history.state?.under) {
      this.#closing = true;
      history.back();
    } else {
      history.replaceState(null, "", "#ask"); // came in by a link: there is nothing of ours to go back to
      this.#dispatch();
    }
  }

  #dispatch() {
    this.#show(this.route, history.state ?? {});
  }
}
