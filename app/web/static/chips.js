// A filter of several values: type one, Enter adds it; each is a button that removes it.
import { fill, h } from "./dom.js";

export class ChipInput {
  /** Builds itself into `root`, whose data-filter and data-label say what it is. */
  constructor(root) {
    this.name = root.dataset.filter;
    this.label = root.dataset.label;
    this.values = [];
    const id = `filter-${this.name}`;
    this.input = h("input", { id, type: "text", autocomplete: "off", spellcheck: "false", placeholder: "Any" });
    this.list = h("div", { class: "chip-list" });
    this.input.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && this.input.value.trim() && !event.isComposing) this.take(); // and the form is submitted
      else if (event.key === "Backspace" && this.input.value === "" && this.values.length > 0) this.remove(this.values.at(-1));
    });
    fill(root, h("label", { for: id }, this.label), this.input, this.list);
    root.classList.add("field");
  }

  /** Move what was typed to the values. */
  take() {
    const value = this.input.value.trim();
    this.input.value = "";
    if (value && !this.values.includes(value)) this.set([...this.values, value]);
  }

  remove(value) {
    this.set(this.values.filter((other) => other !== value));
    this.input.focus();
    this.input.dispatchEvent(new Event("change", { bubbles: true }));
  }

  set(values) {
    this.values = [...values];
    fill(
      this.list,
      this.values.map((value) =>
        h("button", { class: "chip", type: "button", "aria-label": `Remove ${this.label} ${value}`, on: { click: () => this.remove(value) } }, h("span", {}, value), h("span", { class: "cross", "aria-hidden": "true" }, "×")),
      ),
    );
  }
}
