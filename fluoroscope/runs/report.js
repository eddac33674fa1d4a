"use strict";
(() => {
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  const plots = [...document.querySelectorAll(".plot")];

  // --- Light and dark -------------------------------------------------------------------
  const choices = ["auto", "light", "dark"];
  let choice = "auto";
  try { choice = localStorage.getItem("fluoroscope-theme") || "auto"; } catch { /* file:// may forbid it */ }
  const button = document.getElementById("theme");

  function applyTheme(dark = choice === "auto" ? system.matches : choice === "dark") {
    root.classList.toggle("dark", dark);
    root.dataset.theme = dark ? "dark" : "light";
    button.textContent = `Theme: ${choice}`;
    plots.filter((plot) => plot.drawn).forEach(draw);
  }
  button.addEventListener("click", () => {
    choice = choices[(choices.indexOf(choice) + 1) % choices.length];
    try { localStorage.setItem("fluoroscope-theme", choice); } catch { /* stays for this visit */ }
    applyTheme();
  });
  system.addEventListener("change", () => applyTheme());

  // --- Figures --------------------------------------------------------------------------
  const hidden = new Map(); // figure element -> names of series that are switched off
  const color = (name) => getComputedStyle(root).getPropertyValue(name).trim();

  function axisStyle(axis) {
    const look = { gridcolor: color("--rule"), linecolor: color("--rule"), tickcolor: color("--rule"),
      zerolinecolor: color("--rule"), automargin: true, fixedrange: false };
    const title = axis && axis.title && axis.title.text ? axis.title.text : "";
    return { ...axis, ...look, title: { text: title, standoff: 8, font: { size: 12, color: color("--muted") } } };
  }

  function layoutOf(figure, narrow) {
    const layout = { ...figure.layout, autosize: true, margin: { l: 8, r: 12, t: 8, b: 8 } };
    layout.font = { family: getComputedStyle(document.body).fontFamily, size: narrow ? 11 : 12, color: color("--muted") };
    layout.hoverlabel = { bgcolor: color("--raised"), bordercolor: color("--rule"), font: { color: color("--ink"), size: 12 } };
    layout.xaxis = axisStyle(figure.layout.xaxis);
    layout.yaxis = axisStyle(figure.layout.yaxis);
    layout.shapes = (figure.layout.shapes || []).map((s) => ({ ...s, line: { ...s.line, color: color("--muted") } }));
    layout.modebar = { bgcolor: "rgba(0,0,0,0)", color: color("--muted"), activecolor: color("--accent") };
    return layout;
  }

  function tracesOf(figure, off) {
    return figure.data.map((trace) => {
      const shown = { ...trace, visible: !off.has(trace.legendgroup) };
      if (trace.type === "heatmap") {
        if (root.classList.contains("dark")) shown.colorscale = trace.meta.dark;
        shown.colorbar = { ...trace.colorbar, tickfont: { color: color("--muted") } };
      }
      if (trace.type === "bar" && trace.error_y) shown.error_y = { ...trace.error_y, color: color("--muted") };
      return shown;
    });
  }

  function draw(plot) {
    if (!window.Plotly) return;
    plot.drawn = true;
    plot.figure = plot.figure || JSON.parse(plot.nextElementSibling.textContent);
    const off = hidden.get(plot.closest("figure")) || new Set();
    const narrow = plot.clientWidth < 420;
    const config = { displaylogo: false, responsive: true, modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]],
      toImageButtonOptions: { filename: plot.id, scale: 3 } };
    Plotly.react(plot, tracesOf(plot.figure, off), layoutOf(plot.figure, narrow), config);
  }

  // A page of fifty figures opens at once: each is drawn when it is about to be seen.
  const seen = new IntersectionObserver((entries) => {
    entries.filter((entry) => entry.isIntersecting && !entry.target.drawn).forEach((entry) => draw(entry.target));
  }, { rootMargin: "400px" });
  applyTheme();
  plots.forEach((plot) => seen.observe(plot));

  document.querySelectorAll(".legend button").forEach((key) => key.addEventListener("click", () => {
    const figure = key.closest("figure");
    const off = hidden.get(figure) || new Set();
    const name = key.dataset.series;
    if (!off.delete(name)) off.add(name);
    hidden.set(figure, off);
    key.setAttribute("aria-pressed", String(!off.has(name)));
    figure.querySelectorAll(".plot").forEach(draw);
  }));

  // --- Tables ---------------------------------------------------------------------------
  const valueOf = (cell) => cell.dataset.value ?? cell.textContent;

  function compare(a, b, sign) {
    const [x, y] = [Number(a), Number(b)];
    // What is not a number stays at the end, whichever way the column is sorted.
    const [noX, noY] = [a === "" || Number.isNaN(x), b === "" || Number.isNaN(y)];
    if (!noX && !noY) return sign * (x - y);
    if (noX && noY) return sign * a.localeCompare(b, undefined, { numeric: true });
    return noX ? 1 : -1;
  }

  document.querySelectorAll("figure.table").forEach((figure) => {
    const body = figure.querySelector("tbody");
    const heads = [...figure.querySelectorAll("th")];
    heads.forEach((head, column) => head.firstChild.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const rows = [...body.rows];
      rows.sort((a, b) => compare(valueOf(a.cells[column]), valueOf(b.cells[column]), up ? 1 : -1));
      body.append(...rows);
    }));

    const count = figure.querySelector(".count");
    figure.querySelector("input")?.addEventListener("input", (event) => {
      const words = event.target.value.toLowerCase();
      let shown = 0;
      for (const row of body.rows) {
        row.hidden = !row.textContent.toLowerCase().includes(words);
        shown += row.hidden ? 0 : 1;
      }
      count.textContent = words ? `${shown} of ${body.rows.length} rows` : `${body.rows.length} rows`;
    });

    figure.querySelector(".save").addEventListener("click", () => {
      const quote = (text) => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
      const lines = [heads.map((head) => quote(head.textContent)).join(",")];
      for (const row of body.rows) {
        if (!row.hidden) lines.push([...row.cells].map((cell) => quote(valueOf(cell))).join(","));
      }
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob([lines.join("\n") + "\n"], { type: "text/csv" }));
      link.download = `${figure.querySelector("code").textContent}.csv`;
      link.click();
    });
  });

  // --- Contents -------------------------------------------------------------------------
  const links = new Map([...document.querySelectorAll("nav a")].map((link) => [link.hash.slice(1), link]));
  const headings = [...document.querySelectorAll("h2[id], h3[id]")];
  function markPlace() {
    const passed = headings.filter((heading) => heading.getBoundingClientRect().top < 120);
    links.forEach((link) => link.classList.remove("here"));
    if (passed.length) links.get(passed[passed.length - 1].id)?.classList.add("here");
  }
  addEventListener("scroll", markPlace, { passive: true });
  markPlace();
  // Beside the text the list of contents is always open; above it, it folds on small windows.
  if (matchMedia("(max-width: 52rem)").matches) document.querySelector("nav details").open = false;

  // --- Stills of animations -------------------------------------------------------------
  const stills = [...document.querySelectorAll(".stills")];
  if (matchMedia("(prefers-reduced-motion: reduce)").matches) stills.forEach((one) => { one.open = true; });
  let folded = []; // those that were unfolded for the printer only

  // --- Paper ----------------------------------------------------------------------------
  addEventListener("beforeprint", () => {
    plots.forEach((plot) => { plot.drawn = true; });
    folded = stills.filter((one) => !one.open);
    folded.forEach((one) => { one.open = true; });
    applyTheme(false);
  });
  addEventListener("afterprint", () => {
    folded.forEach((one) => { one.open = false; });
    applyTheme();
  });
})();
