// What went wrong, as the service says it (RFC 9457) or as the browser found it.
import { h } from "./dom.js";

/** Carries a problem document: {title, detail, status, request_id, errors: [{loc, msg}]}. */
export class ProblemError extends Error {
  constructor(problem) {
    super(problem.detail || problem.title);
    this.name = "ProblemError";
    this.problem = problem;
  }
}

/** The problem of a response that is not OK, whether or not its body is a problem document. */
export async function problemOf(response) {
  const fallback = {
    title: response.statusText || "The request failed",
    status: response.status,
    detail: `the service answered with status ${response.status}`,
    request_id: response.headers.get("X-Request-ID") ?? "",
  };
  try {
    const body = await response.json();
    return body !== null && typeof body === "object" ? { ...fallback, ...body } : fallback;
  } catch (error) {
    if (error instanceof SyntaxError) return fallback; // a proxy's error page
    throw error;
  }
}

/** The problem of a request that got no response. */
export function unreachable() {
  return navigator.onLine
    ? { title: "The service can't be reached", detail: `Nothing answers at ${location.origin}. Is Braid still running there?` }
    : { title: "You are offline", detail: "This device has no network connection; try again when it has." };
}

/** A problem as an alert; `retry`, where given, becomes a button. */
export function renderProblem(problem, retry = null) {
  const errors = Array.isArray(problem.errors) ? problem.errors : [];
  const repeated = errors.length > 0 && problem.detail?.startsWith(`${place(errors[0].loc)}: ${errors[0].msg}`);
  return h(
    "div",
    { class: "notice problem", role: "alert" },
    h("h2", {}, problem.title || "Something went wrong"),
    problem.detail && !repeated ? h("p", {}, problem.detail) : null,
    errors.length > 0
      ? h("ul", { class: "field-errors" }, errors.map((item) => h("li", {}, h("code", {}, place(item.loc)), " ", item.msg)))
      : null,
    h(
      "p",
      { class: "meta" },
      problem.status ? `Status ${problem.status}` : null,
      problem.status && problem.request_id ? " · " : null,
      problem.request_id ? ["Request ", h("code", {}, problem.request_id)] : null,
    ),
    retry ? h("button", { class: "secondary", type: "button", on: { click: retry } }, "Try again") : null,
  );
}

function place(loc) {
  return Array.isArray(loc) ? loc.join(".") : String(loc ?? "");
}

/** Stages that were skipped or gave less than they should, each with its reason. */
export function renderDegraded(degraded) {
  if (!Array.isArray(degraded) || degraded.length === 0) return null;
  return h(
    "div",
    { class: "notice degraded" },
    h("h2", {}, "Not everything ran as it should"),
    h("dl", {}, degraded.map((item) => [h("dt", {}, item.stage), h("dd", {}, item.reason)])),
  );
}
