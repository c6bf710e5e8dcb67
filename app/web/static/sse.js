// Server-sent events from a fetch response: EventSource can't POST.
// Parsing as in the HTML standard, "Interpreting an event stream"; ids and retry times are of no use here.

/**
 * Yields {event, data} (texts) until the stream ends. Leaving the loop cancels the stream.
 * @param {ReadableStream<Uint8Array>} body
 */
export async function* readEvents(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  let event = "";
  let data = [];
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return; // an event without its closing blank line is incomplete: dropped
      buffer += value;
      const lines = buffer.split(/\r\n|\n|\r(?!$)/); // a last \r may be the first half of \r\n
      buffer = lines.pop();
      for (const line of lines) {
        if (line === "") {
          if (data.length > 0) yield { event: event || "message", data: data.join("\n") };
          event = "";
          data = [];
          continue;
        }
        const colon = line.indexOf(":");
        const field = colon < 0 ? line : line.slice(0, colon);
        const content = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
        if (field === "event") event = content;
        else if (field === "data") data.push(content);
      }
    }
  } finally {
    reader.cancel().catch(() => {}); // already closed or aborted
  }
}
