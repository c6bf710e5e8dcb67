// The theme: as the system, or what the user chose. A classic script in <head>, so that nothing flashes.
"use strict";
(() => {
  const KEY = "braid.theme";
  const ORDER = ["auto", "light", "dark"];
  const LABEL = { auto: "Auto", light: "Light", dark: "Dark" };
  const SPOKEN = { auto: "as the system", light: "light", dark: "dark" };

  function stored() {
    try {
      const value = localStorage.getItem(KEY);
      return ORDER.includes(value) ? value : "auto";
    } catch {
      return "auto"; // storage may be switched off; the theme then lasts as long as the page
    }
  }

  let theme = stored();

  function apply() {
    if (theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    const button = document.getElementById("theme-button");
    if (button) {
      button.textContent = LABEL[theme];
      button.setAttribute("aria-label", `Theme: ${SPOKEN[theme]}`);
    }
  }

  function next() {
    theme = ORDER[(ORDER.indexOf(theme) + 1) % ORDER.length];
    try {
      localStorage.setItem(KEY, theme);
    } catch {
      // see stored()
    }
    apply();
  }

  apply();
  document.addEventListener("DOMContentLoaded", () => {
    apply();
    document.getElementById("theme-button").addEventListener("click", next);
  });
})();
