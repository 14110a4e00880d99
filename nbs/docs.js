// Draws the stored figures of plotly, in the colours of the page, and again when these change.
(() => {
  const figures = [...document.querySelectorAll(".plotly-figure")].map((div) => [div, JSON.parse(div.querySelector("script").textContent)]);
  if (!figures.length) return;
  const axis = { gridcolor: "rgba(128, 128, 128, .25)", zerolinecolor: "rgba(128, 128, 128, .5)", linecolor: "rgba(128, 128, 128, .5)" };
  const coloured = (layout) => {
    const text = getComputedStyle(document.body).color, template = layout.template || {};
    const base = { updatemenudefaults: { bgcolor: "#e9ecef", font: { color: "#222" } }, sliderdefaults: { bgcolor: "rgba(128, 128, 128, .4)", bordercolor: "rgba(128, 128, 128, .4)" }, ...template.layout, xaxis: { ...(template.layout || {}).xaxis, ...axis }, yaxis: { ...(template.layout || {}).yaxis, ...axis } };
    return { ...layout, template: { ...template, layout: base }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { ...layout.font, color: text } };
  };
  const draw = () => figures.forEach(([div, figure]) =>
    window.Plotly.newPlot(div, { data: figure.data, layout: coloured(figure.layout || {}), frames: figure.frames, config: { ...figure.config, responsive: true, displaylogo: false } }));
  draw();
  let dark = document.documentElement.classList.contains("quarto-dark");
  new MutationObserver(() => {
    if (dark !== (dark = document.documentElement.classList.contains("quarto-dark"))) draw();
  }).observe(document.documentElement, { attributes: true, attributeFilter: ["class"] });
})();
