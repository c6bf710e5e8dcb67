// The service's HTTP API.
import { apiKey, askForKey } from "./key.js";
import { ProblemError, problemOf, unreachable } from "./problems.js";
import { readEvents } from "./sse.js";

/**
 * Send one request; a 401 asks the user for a key and sends it again.
 * Throws ProblemError, or AbortError when `signal` fires.
 */
async function send(path, { method = "GET", body, accept = "application/json", signal } = {}) {
  for (;;) {
    const headers = { Accept: accept };
    if (body !== undefined) headers["Content-Type"] = "application/json";
    const key = apiKey();
    if (key !== null) headers.Authorization = `Bearer ${key}`;
    let response;
    try {
      response = await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body), signal });
    } catch (error) {
      if (error instanceof TypeError) throw new ProblemError(unreachable());
      throw error;
    }
    if (response.ok) return response;
    const problem = await problemOf(response);
    if (response.status !== 401 || !(await askForKey(problem.detail))) throw new ProblemError(problem);
  }
}

async function readJson(response) {
  try {
    return await response.json();
  } catch (error) {
    if (error instanceof SyntaxError) throw broken("the service's answer is not JSON");
    if (error instanceof TypeError) throw new ProblemError(unreachable());
    throw error;
  }
}

function broken(detail) {
  return new ProblemError({ title: "The answer broke off", detail });
}

/** POST /v1/search */
export async function search(body, signal) {
  return readJson(await send("/v1/search", { method: "POST", body, signal }));
}

/** POST /v1/feedback; it is stored when this returns. */
export async function sendFeedback(body) {
  await send("/v1/feedback", { method: "POST", body });
}

/** GET /v1/documents/{document_id} */
export async function storedDocument(documentId, signal) {
  return readJson(await send(`/v1/documents/${encodeURIComponent(documentId)}`, { signal }));
}

/** GET /readyz: ready or not, the body says what is wrong. Null when it can't be had. */
export async function readiness() {
  try {
    const response = await fetch("/readyz", { headers: { Accept: "application/json" } });
    const body = await response.json();
    return typeof body?.ready === "boolean" ? body : null;
  } catch (error) {
    if (error instanceof TypeError || error instanceof SyntaxError) return null; // the next request will say so
    throw error;
  }
}

/**
 * POST /v1/answer, streamed: yields {event, data} with data parsed, the last one `done`.
 * An `error` event, or a stream that ends before `done`, becomes a ProblemError.
 */
export async function* streamAnswer(body, signal) {
  const accept = "text/event-stream, application/json";
  const response = await send("/v1/answer", { method: "POST", body: { ...body, stream: true }, accept, signal });
  if (!(response.headers.get("Content-Type") ?? "").startsWith("text/event-stream")) {
    yield { event: "done", data: await readJson(response) };
    return;
  }
  try {
    for await (const { event, data } of readEvents(response.body)) {
      const parsed = JSON.parse(data);
      if (event === "error") throw new ProblemError(parsed.problem ?? parsed);
      yield { event, data: parsed };
      if (event === "done") return;
    }
  } catch (error) {
    if (error instanceof SyntaxError) throw broken("an event of the stream is not JSON");
    if (error instanceof TypeError) throw broken("the connection was lost before the answer was complete");
    throw error;
  }
  throw broken("the stream ended before the answer was complete");
}
