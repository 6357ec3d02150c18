// The book's own page script: plotly figures, and scrolling boxes that a keyboard can reach.
"use strict";
(() => {
  const here = document.currentScript.src.replace(/book\.js.*$/, "");
  const quiet = matchMedia("(prefers-reduced-motion: reduce)");
  let loading;

  const loadPlotly = () =>
    (loading ??= new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = here + "plotly.min.js";
      script.onload = () => resolve(window.Plotly);
      script.onerror = () => reject(new Error("plotly.min.js did not load"));
      document.head.append(script);
    }));

  // The text colour of the page and a fainter one for grids, for whichever theme is on.
  function themed(layout, element) {
    const ink = getComputedStyle(element).color;
    const grid = ink.replace(/^rgba?\(([^,]+),([^,]+),([^,)]+).*$/, "rgba($1,$2,$3,0.25)");
    const result = { ...layout, font: { ...layout.font, color: ink } };
    for (const name of Object.keys(layout).concat("xaxis", "yaxis"))
      if (/^[xy]axis\d*$/.test(name))
        result[name] = { ...layout[name], gridcolor: grid, zerolinecolor: grid, linecolor: ink };
    if (layout.scene || Object.keys(layout).some((name) => name.startsWith("scene")))
      result.scene = { ...layout.scene, ...Object.fromEntries(
        ["xaxis", "yaxis", "zaxis"].map((axis) => [axis, { ...layout.scene?.[axis], gridcolor: grid, color: ink, showbackground: false }])) };
    return result;
  }

  async function draw(box) {
    const { data, layout, config } = JSON.parse(box.querySelector("script").textContent);
    const plotly = await loadPlotly();
    const alt = box.querySelector(".plotly-alt");
    const stage = document.createElement("div");
    stage.setAttribute("role", "img");
    stage.setAttribute("aria-label", alt.textContent);
    stage.style.minHeight = box.style.minHeight;
    box.append(stage);
    const still = quiet.matches ? { transition: { duration: 0 } } : {};
    stage.style.height = box.style.minHeight;
    await plotly.newPlot(stage, data, { ...themed(layout, box), ...still }, config);
    alt.hidden = true;
    box.redraw = () => plotly.relayout(stage, themed(layout, box));
  }

  function watchPlots() {
    const boxes = [...document.querySelectorAll(".plotly-figure")];
    if (!boxes.length) return;
    const observer = new IntersectionObserver((entries) => {
      for (const entry of entries)
        if (entry.isIntersecting) {
          observer.unobserve(entry.target);
          draw(entry.target).catch((error) => console.error(error));
        }
    }, { rootMargin: "300px" });
    boxes.forEach((box) => observer.observe(box));
    new MutationObserver(() => boxes.forEach((box) => box.redraw?.()))
      .observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme"] });
  }

  // A box that scrolls sideways must take the focus, or the keyboard cannot move it.
  function reachable() {
    const boxes = "div.math mjx-container, .mmvae-figure, .pst-scrollable-table-container, div.output pre, div.highlight pre, .cell_output .output";
    for (const box of document.querySelectorAll(boxes)) {
      const scrolls = box.scrollWidth > box.clientWidth + 1 && getComputedStyle(box).overflowX !== "visible";
      if (scrolls && !box.hasAttribute("tabindex")) box.setAttribute("tabindex", "0");
    }
  }

  function start() {
    watchPlots();
    reachable();
    addEventListener("resize", reachable);
    addEventListener("load", reachable);
    addEventListener("formulas-set", reachable);
  }
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
