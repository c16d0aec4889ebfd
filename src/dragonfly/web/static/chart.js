// A chart of days, drawn by hand: one bar a day, and the same figures as words for who does not see it.

import { drawn } from "./dom.js";

const HEIGHT = 220;
const FOOT = 26;
const TOP = 22;
const LABEL_WIDTH = 90;

/**
 * Bars of `points` ({day, value, label}); `label` is what is said of a bar, `top` the largest value as text. `width` is
 * that of the place where it goes, so that letters keep their size.
 */
export function bars(title, points, top, dayLabel, width) {
  const most = Math.max(...points.map((point) => point.value), 0) || 1;
  const step = width / points.length;
  const every = Math.ceil((points.length * LABEL_WIDTH) / width);
  const height = HEIGHT - FOOT - TOP;
  const columns = points.map((point, place) => {
    const size = point.value === 0 ? 0 : Math.max(2, (point.value / most) * height);
    return drawn("g", { class: "bar" },
      drawn("title", {}, point.label),
      drawn("rect", { class: "reach", x: place * step, y: TOP, width: step, height }),
      drawn("rect", {
        class: "fill", rx: 2, x: place * step + step * 0.14, y: TOP + height - size, width: step * 0.72, height: size,
      }));
  });
  const labels = points
    .map((point, place) => [point, place])
    .filter(([, place]) => place % every === 0 && (points.length - place) * step > LABEL_WIDTH / 2)
    .map(([point, place]) => drawn("text", { x: place * step, y: HEIGHT - 6 }, dayLabel(point.day)));
  return drawn("svg", { class: "chart", viewBox: `0 0 ${width} ${HEIGHT}`, role: "img", "aria-label": title },
    drawn("title", {}, title),
    drawn("line", { class: "axis", x1: 0, x2: width, y1: TOP + height, y2: TOP + height }),
    drawn("line", { class: "grid", x1: 0, x2: width, y1: TOP, y2: TOP }),
    drawn("text", { x: 0, y: TOP - 7 }, top),
    columns,
    labels);
}
