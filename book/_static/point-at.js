// Says what is under the pointer or the finger in a heat map: each `figure.drawn` with data holds one grid for each image.
(() => {
  const label = document.createElement("div");
  label.className = "point-at";
  label.setAttribute("role", "status");
  label.hidden = true;

  const say = (grid, row, column, x, y) => {
    const lines = [`${grid.x} ${grid.columns[column]}`, `${grid.y} ${grid.rows[row]}`, `${grid.value} ${grid.texts[row][column]}`];
    label.replaceChildren(...lines.map((line) => Object.assign(document.createElement("div"), { textContent: line })));
    label.hidden = false;
    const [width, height] = [label.offsetWidth, label.offsetHeight];
    label.style.left = `${Math.min(x + 12, innerWidth - width - 4)}px`;
    label.style.top = `${y - height - 12 > 0 ? y - height - 12 : y + 16}px`;
  };

  addEventListener("DOMContentLoaded", () => {
    for (const figure of document.querySelectorAll("figure.drawn")) {
      const data = figure.querySelector('script[type="application/json"]');
      if (!data) continue;
      const grids = JSON.parse(data.textContent);
      const images = [...figure.querySelectorAll("svg image")].slice(0, grids.length);
      const place = (event) => {
        for (const [number, image] of images.entries()) {
          const box = image.getBoundingClientRect();
          const [across, down] = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
          if (across < 0 || across >= 1 || down < 0 || down >= 1) continue;
          const { rows, columns } = grids[number];
          return say(grids[number], Math.floor(down * rows.length), Math.floor(across * columns.length), event.clientX, event.clientY);
        }
        label.hidden = true;
      };
      // Panels that flow are drawings of their own.
      for (const svg of figure.querySelectorAll("svg")) {
        svg.addEventListener("pointermove", place);
        svg.addEventListener("pointerdown", place);
      }
      figure.addEventListener("pointerleave", () => (label.hidden = true));
    }
    document.body.append(label);
    addEventListener("scroll", () => (label.hidden = true), { passive: true });
    addEventListener("keydown", (event) => event.key === "Escape" && (label.hidden = true));
  });
})();
