// Finds query words and quotes in a text, and marks them; the text stays text.
import { h } from "./dom.js";

const WORD = /[\p{L}\p{N}]+/gu;
const STOP = new Set(
  ("a an and are as at be but by can did do does for from had has have how i if in into is it its me my no not of on or our so " +
    "that the their then there these they this to was we were what when where which who why will with would you your").split(" "),
);

/** A crude stem, enough to mark "bridges" for "bridge"; what matched is OpenSearch's business, this only shows it. */
function stem(word) {
  const lower = word.toLowerCase();
  return lower.length > 4 ? lower.replace(/(?:ies|ing|ed|es|s|e|y)$/u, "") : lower.replace(/(?<=\p{L}{2})s$/u, "");
}

/** The stems of a query's words, without function words (unless there are no others). */
export function queryTerms(query) {
  const words = query.match(WORD) ?? [];
  const telling = words.filter((word) => !STOP.has(word.toLowerCase()));
  return new Set((telling.length > 0 ? telling : words).map(stem));
}

/** `text` as nodes, the words of `terms` in <mark>. */
export function markWords(text, terms) {
  const nodes = [];
  let from = 0;
  for (const match of text.matchAll(WORD)) {
    if (!terms.has(stem(match[0]))) continue;
    nodes.push(text.slice(from, match.index), h("mark", {}, match[0]));
    from = match.index + match[0].length;
  }
  nodes.push(text.slice(from));
  return nodes.filter((node) => node !== "");
}

/** `text` folded for comparing (case, white space, quotation marks, dashes), and where each character came from. */
function fold(text) {
  let folded = "";
  const origin = [];
  let index = 0;
  for (const character of text) {
    let plain = character;
    if (/\s/u.test(character)) plain = folded.endsWith(" ") ? "" : " ";
    else if (/[\u2018\u2019\u201a\u2032]/u.test(character)) plain = "'";
    else if (/[\u201c\u201d\u201e\u00ab\u00bb]/u.test(character)) plain = '"';
    else if (/[\u2010-\u2015\u2212]/u.test(character)) plain = "-";
    else if (character === "\u00ad") plain = "";
    else plain = character.toLowerCase();
    for (let i = 0; i < plain.length; i += 1) origin.push(index);
    folded += plain;
    index += character.length;
  }
  origin.push(text.length);
  return { folded, origin };
}

/** Where `quote` stands in `text`: [start, end), or null. White space, case and typography may differ. */
export function findQuote(text, quote) {
  if (!quote || !quote.trim()) return null;
  const { folded, origin } = fold(text);
  const sought = fold(quote.trim().replace(/^(?:\.\.\.|…)\s*|\s*(?:\.\.\.|…)$/gu, "")).folded.trim();
  const at = sought ? folded.indexOf(sought) : -1;
  return at < 0 ? null : [origin[at], origin[at + sought.length]];
}

/** `text` as nodes with `quote` in <mark>; the text alone where the quote is not in it. */
export function markQuote(text, quote) {
  const found = findQuote(text, quote);
  if (found === null) return [text];
  const [start, end] = found;
  return [text.slice(0, start), h("mark", { class: "quote" }, text.slice(start, end)), text.slice(end)].filter((node) => node !== "");
}
