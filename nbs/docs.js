// Draws the stored figures of plotly, in the colours of the page, and again when these change.
(() => {
  const stored = (div) => JSON.parse(div.querySelector("script").textContent);
  const figures = [...document.querySelectorAll(".plotly-figure")].map((div) => [div, stored(div)]);
  if (!figures.length) return;
  const line = "rgba(128, 128, 128, .5)", axis = { gridcolor: "rgba(128, 128, 128, .25)", zerolinecolor: line, linecolor: line };
  const coloured = (layout) => {
    const color = getComputedStyle(document.body).color, template = layout.template || {}, own = template.layout || {};
    const grey = "rgba(128, 128, 128, .4)", none = "rgba(0,0,0,0)";
    const base = {
      updatemenudefaults: { bgcolor: "#e9ecef", font: { color: "#222" } },
      sliderdefaults: { bgcolor: grey, bordercolor: grey },
      ...own, xaxis: { ...own.xaxis, ...axis }, yaxis: { ...own.yaxis, ...axis },
    };
    const font = { ...layout.font, color };
    return { ...layout, template: { ...template, layout: base }, paper_bgcolor: none, plot_bgcolor: none, font };
  };
  const draw = () => figures.forEach(([div, figure]) => window.Plotly.newPlot(div, {
    data: figure.data, layout: coloured(figure.layout || {}), frames: figure.frames,
    config: { ...figure.config, responsive: true, displaylogo: false },
  }));
  draw();
  let dark = document.documentElement.classList.contains("quarto-dark");
  new MutationObserver(() => {
    if (dark !== (dark = document.documentElement.classList.contains("quarto-dark"))) draw();
  }).observe(document.documentElement, { attributes: true, attributeFilter: ["class"] });
})();
