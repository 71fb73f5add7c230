"use strict";
// Draws every chart of the page with uPlot from the JSON in #charts. All share the step axis and one cursor.
(() => {
  const data = JSON.parse(document.getElementById("charts").textContent);
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  const FONT = "11px system-ui, -apple-system, 'Segoe UI', Roboto, 'Liberation Sans', sans-serif";
  const FORMS = {
    decimal: (value) => (Math.abs(value) >= 100 ? value.toFixed(0) : Math.abs(value) >= 10 ? value.toFixed(1) : value.toFixed(3)),
    count: (value) => Math.round(value).toLocaleString("en"),
    scientific: (value) => value.toExponential(2),
  };
  const NAMES = { training: "training", heldout: "held out", before: "held out", line: "" };
  const steps = (value) => (value >= 1e6 ? `${value / 1e6}M` : value >= 1e4 ? `${value / 1e3}k` : `${value}`);

  const STYLES = {
    training: () => ({ stroke: colour("model-soft"), width: 1.2, points: { show: false } }),
    line: () => ({ stroke: colour("model"), width: 1.4, points: { show: false } }),
    heldout: () => ({ stroke: colour("model"), width: 1.8, points: { show: true, size: 6, fill: colour("model") } }),
    before: () => ({ stroke: colour("model-soft"), width: 0, paths: () => null, points: { show: true, size: 6, width: 1.3, fill: colour("paper"), stroke: colour("model-soft") } }),
    low: () => ({ stroke: "transparent", width: 0, points: { show: false } }),
    high: () => ({ stroke: "transparent", width: 0, points: { show: false } }),
  };

  // The y range contains all values and rules with a margin; learning rates start at zero.
  function range(chart) {
    const all = [...chart.series.flatMap((series) => series.y), ...chart.rules.map((rule) => rule.value)].filter((value) => value !== null);
    if (!all.length) return [0, 1];
    const low = Math.min(...all), high = Math.max(...all);
    const margin = (high - low || Math.abs(high) || 1) * 0.1;
    return [chart.form === "scientific" ? 0 : low >= 0 ? Math.max(0, low - margin) : low - margin, high + margin];
  }

  // Text with a halo in the background colour, so that it stays readable over lines.
  function drawText(context, text, x, y, fill, align) {
    Object.assign(context, { textAlign: align, textBaseline: "middle", lineJoin: "round", lineWidth: 4 * devicePixelRatio, strokeStyle: colour("paper"), fillStyle: fill });
    context.strokeText(text, x, y);
    context.fillText(text, x, y);
  }

  function drawBackground(plot, chart) {
    const { ctx: context, bbox: box } = plot, ratio = devicePixelRatio;
    const at = (step) => plot.valToPos(step, "x", true);
    context.save();
    context.font = FONT.replace("11px", `${11 * ratio}px`);
    context.fillStyle = colour("veil");
    for (const [begin, end] of chart.untrained) context.fillRect(at(begin), box.top, at(end) - at(begin), box.height);
    for (const stage of data.stages) {
      Object.assign(context, { lineWidth: ratio, strokeStyle: colour("rule") });
      context.beginPath();
      context.moveTo(at(stage.end), box.top - 8 * ratio);
      context.lineTo(at(stage.end), box.top + box.height);
      context.stroke();
      if (at(stage.end) - at(stage.begin) > 14 * ratio) drawText(context, stage.name, (at(stage.begin) + at(stage.end)) / 2, box.top - 8 * ratio, colour("soft"), "center");
    }
    context.restore();
  }

  function drawForeground(plot, chart) {
    const { ctx: context, bbox: box } = plot, ratio = devicePixelRatio;
    const height = (value) => plot.valToPos(value, "y", true);
    context.save();
    context.font = FONT.replace("11px", `${11 * ratio}px`);
    // Label the higher rule above its line and the lower one below, so that close rules stay readable.
    [...chart.rules].sort((a, b) => b.value - a.value).forEach((rule, index) => {
      const y = height(rule.value);
      context.strokeStyle = colour(rule.role);
      context.lineWidth = 1.3 * ratio;
      context.setLineDash(rule.role === "feature" ? [5 * ratio, 3 * ratio] : [2 * ratio, 3 * ratio]);
      context.beginPath();
      context.moveTo(box.left, y);
      context.lineTo(box.left + box.width, y);
      context.stroke();
      context.setLineDash([]);
      const inside = Math.min(Math.max(y + (index ? 9 : -9) * ratio, box.top + 7 * ratio), box.top + box.height - 7 * ratio);
      drawText(context, rule.label, box.left + 5 * ratio, inside, colour(rule.role), "left");
    });
    const last = chart.series.filter((series) => !["low", "high", "before"].includes(series.role)).map((series) => series.y.findLastIndex((value) => value !== null) >= 0 && series).filter(Boolean).pop();
    if (last) {
      const index = last.y.findLastIndex((value) => value !== null);
      drawText(context, FORMS[chart.form](last.y[index]), plot.valToPos(last.x[index], "x", true) + 6 * ratio, height(last.y[index]), colour("model"), "left");
    }
    context.restore();
  }

  function caption(plot, chart, output) {
    const index = plot.cursor.idx;
    if (index === null || index === undefined) return void (output.textContent = "");
    const shown = chart.series.flatMap((series, place) => {
      const value = plot.data[place + 1][index];
      return value === null || value === undefined || !(series.role in NAMES) ? [] : [`${NAMES[series.role]} ${FORMS[chart.form](value)}`.trim()];
    });
    output.textContent = shown.length ? `step ${plot.data[0][index].toLocaleString("en")}: ${shown.join(", ")}` : "";
  }

  function draw(figure) {
    const chart = data.charts[figure.dataset.chart], place = figure.querySelector(".plot");
    const axis = { stroke: colour("soft"), font: FONT, ticks: { show: false } };
    const band = chart.series.findIndex((series) => series.role === "high") + 1;
    place.textContent = "";
    return new uPlot({
      width: place.clientWidth,
      height: place.clientHeight,
      padding: [18, chart.form === "scientific" ? 54 : 46, 0, 0],
      legend: { show: false },
      cursor: { sync: { key: "step" }, y: false, drag: { x: false, y: false }, points: { size: 6 } },
      scales: { x: { time: false, range: [0, data.steps || 1] }, y: { range: range(chart) } },
      axes: [
        { ...axis, size: 24, gap: 4, grid: { show: false }, space: 60, values: (_, splits) => splits.map(steps) },
        { ...axis, size: chart.form === "decimal" ? 40 : 56, gap: 6, space: 34, grid: { stroke: colour("rule"), width: 0.6 }, values: chart.form === "scientific" ? (_, splits) => splits.map((value) => (value ? value.toExponential(1) : "0")) : undefined },
      ],
      series: [{}, ...chart.series.map((series) => STYLES[series.role]())],
      bands: band ? [{ series: [band, band - 1], fill: `color-mix(in srgb, ${colour("model")} 20%, transparent)` }] : [],
      hooks: {
        drawClear: [(plot) => drawBackground(plot, chart)],
        draw: [(plot) => drawForeground(plot, chart)],
        setCursor: [(plot) => caption(plot, chart, figure.querySelector("output"))],
      },
    }, uPlot.join(chart.series.map((series) => [series.x, series.y])), place);
  }

  const figures = [...document.querySelectorAll("[data-chart]")];
  let plots = [];
  function redraw() {
    for (const plot of plots) plot.destroy();
    plots = figures.map(draw);
  }
  redraw();
  let width = innerWidth;
  addEventListener("resize", () => innerWidth !== width && ((width = innerWidth), redraw()));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  addEventListener("beforeprint", () => ((document.documentElement.dataset.print = ""), redraw()));
  addEventListener("afterprint", () => (delete document.documentElement.dataset.print, redraw()));
})();
