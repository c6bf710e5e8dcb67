// "Relevant" and "Not relevant": what a reader says of a result, or of an answer as a whole.
import { sendFeedback } from "./api.js";
import { announce, h, svg } from "./dom.js";
import { ProblemError } from "./problems.js";

const KEPT_RESULTS = 20; // of one list, as in app/feedback/entries.py: the log knows no others
const NOT_IMPLEMENTED = 501;
const LABELS = { relevant: "Relevant", irrelevant: "Not relevant" };

let off = false; // the service keeps no log; asked again when the page is loaded again

/** The buttons for the result at `place` (from 0) of a list; null where nothing can be said of it. */
export function resultVote(queryId, result, place) {
  return place < KEPT_RESULTS ? vote({ query_id: queryId, result_id: result.id }, `Feedback on ${result.title || result.document_id}`) : null;
}

/** The buttons for an answer as a whole. */
export function answerVote(queryId) {
  return vote({ query_id: queryId }, "Feedback on this answer");
}

function vote(about, name) {
  if (off || !about.query_id) return null;
  let said = null;
  let sending = false;
  const error = h("p", { class: "vote-error", role: "alert", tabindex: "-1", hidden: true });
  const buttons = Object.entries(LABELS).map(([label, text]) =>
    h("button", { class: `vote-button ${label}`, type: "button", "aria-pressed": "false", "aria-label": text, title: text, on: { click: () => press(label) } }, thumb()),
  );
  const group = h("div", { class: "vote-buttons", role: "group", "aria-label": name }, buttons);

  async function press(label) {
    if (sending || label === said) return; // what was said can be changed, not taken back
    busy(true);
    error.hidden = true;
    try {
      await sendFeedback({ ...about, label });
      said = label;
      for (const button of buttons) button.setAttribute("aria-pressed", String(button.classList.contains(label)));
      announce(`Marked as ${LABELS[label].toLowerCase()}`);
    } catch (problem) {
      if (!(problem instanceof ProblemError)) throw problem;
      tell(problem);
    } finally {
      busy(false);
    }
  }

  /** While it is sent the buttons stay where the focus is, so they are not `disabled`. */
  function busy(on) {
    sending = on;
    for (const button of buttons) button.setAttribute("aria-disabled", String(on));
  }

  function tell(problem) {
    error.textContent = problem.message;
    error.hidden = false;
    if (problem.problem.status !== NOT_IMPLEMENTED) return;
    const focused = group.contains(document.activeElement);
    off = true;
    for (const other of document.querySelectorAll(".vote-buttons")) other.hidden = true;
    if (focused) error.focus({ preventScroll: true });
  }

  return h("div", { class: "vote" }, group, error);
}

/** A thumb; the style sheet turns the one of "Not relevant" over. */
function thumb() {
  return svg(
    "svg",
    { viewBox: "0 0 16 16", "aria-hidden": "true", focusable: "false" },
    svg("path", { d: "M1.8 7.2h2.6v6.4H1.8z" }),
    svg("path", { d: "M4.4 7.4 7.3 2c1.1 0 1.9.8 1.9 1.9L8.9 6.4h3.7c1 0 1.7.9 1.5 1.8l-1 4.3c-.2.7-.7 1.1-1.4 1.1H4.4" }),
  );
}
