// What a reader would object to on the page that is shown: {name of the objection: where}. Runs in the page.
(() => {
  const found = {wide: [], outside: [], cut: [], overlap: [], contrast: [], empty: []};
  const said = (node) => (node.textContent || "").trim().slice(0, 60);
  const page = document.documentElement;
  if (page.scrollWidth > innerWidth) found.wide.push(`${page.scrollWidth} of ${innerWidth} pixels`);

  const channels = (colour) => {
    const parts = colour.match(/[\d.]+/g).map(Number);
    const whole = colour.startsWith("color(") ? 1 : 255;
    return [parts[0] / whole, parts[1] / whole, parts[2] / whole, parts.length > 3 ? parts[3] : 1];
  };
  const luminance = (rgb) => {
    const [r, g, b] = rgb.slice(0, 3).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const over = (top, below) => [0, 1, 2].map((i) => top[i] * top[3] + below[i] * (1 - top[3])).concat(1);
  const contrast = (a, b) => {
    const [high, low] = [luminance(a), luminance(b)].sort((x, y) => y - x);
    return (high + 0.05) / (low + 0.05);
  };
  // All colours that lie behind an element: a striped one has several.
  const behind = (element) => {
    if (!element) return [[1, 1, 1, 1]];
    const style = getComputedStyle(element);
    const below = behind(element.parentElement);
    const flat = channels(style.backgroundColor);
    const stripes = style.backgroundImage.match(/rgba?\([^)]*\)|color\([^)]*\)/g) || [];
    const ground = below.map((colour) => over(flat, colour));
    return stripes.length ? stripes.flatMap((stripe) => ground.map((colour) => over(channels(stripe), colour))) : ground;
  };

  const texts = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const parent = node.parentElement;
    if (!node.data.trim() || parent.closest("title, style")) continue;
    if (!parent.checkVisibility({visibilityProperty: true})) continue;
    const range = document.createRange();
    range.selectNodeContents(node);
    // A range has boxes even for texts of a drawing that are not displayed.
    const all = parent instanceof SVGElement ? [parent.getBoundingClientRect()] : [...range.getClientRects()];
    const boxes = all.filter((box) => box.width > 0 && box.height > 0);
    let hidden = false;
    for (let around = parent; around && around !== document.body; around = around.parentElement) {
      const style = getComputedStyle(around);
      if (style.overflowX === "visible" || around instanceof SVGElement) continue;
      const frame = around.getBoundingClientRect();
      if (frame.width <= 1 || frame.height <= 1) { hidden = true; break; }
      const inside = boxes.filter((b) => b.top < frame.bottom - 1 && b.bottom > frame.top + 1);
      if (!inside.length) { hidden = true; break; }
      // What can be scrolled to is not cut; that nothing has to be on a phone is asked of the page.
      if (style.overflowX === "hidden" && boxes.some((b) =>
        b.left < frame.left - 1 || b.right > frame.right + 1 || b.top < frame.top - 3 || b.bottom > frame.bottom + 3))
        found.cut.push(said(node));
      if (style.overflowX === "auto" && around.scrollWidth > around.clientWidth + 1) found.cut.push(`scrolls: ${said(node)}`);
    }
    if (hidden) continue;
    for (const box of boxes) {
      if (box.left < -0.5 || box.right > innerWidth + 0.5) found.outside.push(said(node));
      texts.push({node, box});
    }
    const style = getComputedStyle(parent);
    const own = channels(parent instanceof SVGElement ? style.fill : style.color);
    const least = Math.min(...behind(parent).map((ground) => contrast(over(own, ground), ground)));
    if (least < 4.5) found.contrast.push(`${least.toFixed(2)}: ${said(node)}`);
  }

  texts.sort((a, b) => a.box.top - b.box.top);
  texts.forEach((one, index) => {
    for (let next = index + 1; next < texts.length && texts[next].box.top < one.box.bottom; next++) {
      const other = texts[next];
      if (other.node === one.node) continue;
      const across = Math.min(one.box.right, other.box.right) - Math.max(one.box.left, other.box.left);
      const down = Math.min(one.box.bottom, other.box.bottom) - Math.max(one.box.top, other.box.top);
      // Boxes of lines are higher than their letters, so lines may share a few pixels.
      if (across > 1 && down > 5) found.overlap.push(`${said(one.node)} | ${said(other.node)}`);
    }
  });

  for (const chart of document.querySelectorAll("svg.ridge, svg.plot, svg.axis, .bar")) {
    const box = chart.getBoundingClientRect();
    if (box.width < 100 && !chart.style.width || box.height < 10) found.empty.push(`${chart.className.baseVal ?? chart.className}: ${box.width} by ${box.height}`);
    if (chart.matches("svg.ridge, svg.plot") && !chart.querySelector("line, path")) found.empty.push("nothing drawn");
  }
  return Object.fromEntries(Object.entries(found).filter(([, where]) => where.length).map(([name, where]) => [name, where.slice(0, 8)]));
})()
