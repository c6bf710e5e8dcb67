// Makes elements. Text only ever becomes a text node: nothing here, or elsewhere on the page, parses HTML.

/** An element with attributes (null and false leave one out), `on` listeners and children (nodes, texts, null). */
export function h(tag, attributes = {}, ...children) {
  return made(document.createElement(tag), attributes, children);
}

/** The same for an element of SVG. */
export function svg(tag, attributes = {}, ...children) {
  return made(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function made(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "on") {
      for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener);
    } else if (value !== null && value !== undefined && value !== false) {
      element.setAttribute(name, value === true ? "" : String(value));
    }
  }
  append(element, children);
  return element;
}

/** Append nodes and texts, flattening lists and leaving out null, undefined and false. */
export function append(parent, children) {
  for (const child of children.flat(Infinity)) {
    if (child !== null && child !== undefined && child !== false) parent.append(child);
  }
}

/** Replace everything in `parent`. */
export function fill(parent, ...children) {
  parent.replaceChildren();
  append(parent, children);
}

export const byId = (id) => document.getElementById(id);

/** Say something to screen readers. */
export function announce(text) {
  byId("status").textContent = text;
}

/** A click that the browser should not treat on its own (new tab, new window, download). */
export function isPlainClick(event) {
  return event.button === 0 && !event.metaKey && !event.ctrlKey && !event.shiftKey && !event.altKey;
}
