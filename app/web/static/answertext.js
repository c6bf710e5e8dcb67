// An answer's text as paragraphs, lists, code and citation marks. Bold and `code` are the only inline formatting.
import { h } from "./dom.js";

const INLINE = /\[(\d{1,3}(?:\s*,\s*\d{1,3})*)\]|\*\*([^*\n]+)\*\*|`([^`\n]+)`/g;
const BULLET = /^\s*[-*•]\s+/;
const NUMBER = /^\s*\d{1,3}[.)]\s+/;

/**
 * Nodes for `text`. `mark(n)` gives the node for citation mark n, or null: then the mark stays as it was written.
 */
export function answerNodes(text, mark) {
  const nodes = [];
  const lines = text.split(/\r?\n/);
  let paragraph = [];
  const flush = () => {
    if (paragraph.length > 0) nodes.push(h("p", {}, inline(paragraph.join("\n"), mark)));
    paragraph = [];
  };
  for (let i = 0; i < lines.length; i += 1) {
    const line = lines[i];
    if (line.trimStart().startsWith("```")) {
      flush();
      const code = [];
      for (i += 1; i < lines.length && !lines[i].trimStart().startsWith("```"); i += 1) code.push(lines[i]);
      nodes.push(h("pre", {}, h("code", {}, code.join("\n"))));
    } else if (BULLET.test(line) || NUMBER.test(line)) {
      flush();
      const kind = BULLET.test(line) ? BULLET : NUMBER;
      const start = kind === NUMBER ? Number.parseInt(line.trim(), 10) : null;
      const items = [];
      for (; i < lines.length && kind.test(lines[i]); i += 1) items.push(h("li", {}, inline(lines[i].replace(kind, ""), mark)));
      i -= 1;
      nodes.push(kind === NUMBER ? h("ol", { start }, items) : h("ul", {}, items));
    } else if (/^#{1,6}\s/.test(line)) {
      flush();
      nodes.push(h("p", {}, h("strong", {}, inline(line.replace(/^#+\s+/, ""), mark))));
    } else if (line.trim() === "") {
      flush();
    } else {
      paragraph.push(line);
    }
  }
  flush();
  return nodes;
}

function inline(text, mark) {
  const nodes = [];
  let from = 0;
  for (const match of text.matchAll(INLINE)) {
    const [whole, markers, bold, code] = match;
    nodes.push(text.slice(from, match.index));
    if (markers !== undefined) tie(nodes, marks(whole, markers, mark));
    else if (bold !== undefined) nodes.push(h("strong", {}, inline(bold, mark)));
    else nodes.push(h("code", {}, code));
    from = match.index + whole.length;
  }
  nodes.push(text.slice(from));
  return nodes;
}

function marks(whole, markers, mark) {
  const made = markers.split(",").map((marker) => mark(Number(marker)) ?? `[${marker.trim()}]`);
  return made.every((node) => typeof node === "string") ? [whole] : made;
}

/** Append marks so that no line begins with the first: the word before it, if it is short, stays with it. */
function tie(nodes, [first, ...others]) {
  const before = nodes.pop();
  const word = /\S{1,24}[^\S\n]*$/.exec(before)?.[0] ?? "";
  nodes.push(before.slice(0, before.length - word.length), h("span", { class: "tie" }, word, first), ...others);
}
