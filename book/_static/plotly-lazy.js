// Draws every `.plotly-lazy` of the page from the specification inside it, with the page's own copy of plotly,
// which is loaded only where there is something to draw; redraws the colours when the theme changes.
(() => {
  const vendor = document.currentScript.src.replace(/[^/]*$/, "vendor/");
  const GRID = "rgba(128,128,128,.35)";
  // No button that offers an upload; where there is no pointer to rest, the buttons would stay over the title.
  const CONFIG = {
    responsive: true, displaylogo: false, showSendToCloud: false, showEditInChartStudio: false,
    displayModeBar: matchMedia("(hover: none)").matches ? false : "hover",
  };

  const colours = () => {
    const dark = document.documentElement.dataset.theme === "dark";
    return { ink: dark ? "#dddddd" : "#222222", surface: dark ? "#2a2a2a" : "#f2f2f2" };
  };

  // What depends on the theme, as plotly's dotted attribute paths.
  const themed = (layout) => {
    const { ink, surface } = colours();
    const update = { "font.color": ink, "hoverlabel.bgcolor": surface, "hoverlabel.font.color": ink };
    for (const control of ["updatemenus", "sliders"])
      (layout[control] || []).forEach((_, i) => {
        update[`${control}[${i}].bgcolor`] = surface;
        update[`${control}[${i}].bordercolor`] = GRID;
      });
    return update;
  };

  const draw = async (element) => {
    const { data, layout, frames } = JSON.parse(element.querySelector("script").textContent);
    const axes = Object.keys(layout).filter((name) => /^[xy]axis\d*$/.test(name));
    for (const name of new Set(["xaxis", "yaxis", ...axes]))
      layout[name] = { gridcolor: GRID, zerolinecolor: GRID, linecolor: GRID, automargin: true, ...layout[name] };
    Object.assign(layout, { paper_bgcolor: "transparent", plot_bgcolor: "transparent" });
    layout.margin = { t: 32, r: 16, b: 48, l: 48, ...layout.margin };
    const alone = element.querySelector(".plotly-alone");
    await Plotly.newPlot(element, { data, layout, frames, config: CONFIG });
    if (alone) alone.hidden = true;
    await Plotly.relayout(element, themed(layout));
  };

  addEventListener("DOMContentLoaded", () => {
    const elements = [...document.querySelectorAll(".plotly-lazy")];
    if (!elements.length) return;
    const script = document.createElement("script");
    script.src = vendor + "plotly.min.js";
    script.onload = async () => {
      for (const element of elements) await draw(element);
      new MutationObserver(() => elements.forEach((e) => Plotly.relayout(e, themed(e.layout)))).observe(
        document.documentElement,
        { attributes: true, attributeFilter: ["data-theme"] },
      );
    };
    document.head.append(script);
  });
})();
