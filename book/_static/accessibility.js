// Repairs to the theme's HTML, each for a fault that axe-core reports.
addEventListener("DOMContentLoaded", () => {
  const each = (selector, repair) => document.querySelectorAll(selector).forEach(repair);

  // A label that differs from the visible text hides that text from speech input.
  each(".search-button__button, summary", (e) => e.textContent.trim() && e.removeAttribute("aria-label"));
  // The sidebar is outside every landmark.
  each(".bd-sidebar-primary", (e) => {
    e.setAttribute("role", "navigation");
    e.setAttribute("aria-label", "Book");
  });
  // docutils gives citations roles that may not stand where they do.
  each(".citation-list, .citation", (e) => e.removeAttribute("role"));
});

// Buttons that consist of a picture have their name only in a tooltip.
const name = () =>
  document.querySelectorAll(".copybtn:not([aria-label])").forEach((e) => e.setAttribute("aria-label", e.dataset.tooltip));

// Font Awesome turns <i title> into <svg><title>, which then contradicts the label of the button around it.
const silence = () =>
  document.querySelectorAll("button[aria-label] svg").forEach((svg) => {
    svg.querySelector("title")?.remove();
    svg.removeAttribute("aria-labelledby");
    svg.removeAttribute("role");
    svg.setAttribute("aria-hidden", "true");
  });
const repair = () => {
  name();
  silence();
};
addEventListener("load", () => {
  repair();
  new MutationObserver(repair).observe(document.body, { childList: true, subtree: true });
});
