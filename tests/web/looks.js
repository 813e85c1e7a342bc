// What a test asks of a page in the browser: WCAG's contrast ratio of its texts, what overflows, what can be focused.
window.looks = (() => {
  const parse = (text) => {
    const found = text.match(/^rgba?\(([^)]+)\)$/);
    if (!found) { throw new Error(`a colour of another kind: ${text}`); }
    const [r, g, b, a = 1] = found[1].split(/[ ,/]+/).map(Number);
    return { r, g, b, a };
  };
  const over = (top, under) => {
    const a = top.a + under.a * (1 - top.a);
    const mix = (x, y) => a ? (x * top.a + y * under.a * (1 - top.a)) / a : 0;
    return { r: mix(top.r, under.r), g: mix(top.g, under.g), b: mix(top.b, under.b), a };
  };
  // WCAG 2.2, relative luminance.
  const light = ({ r, g, b }) => {
    const [x, y, z] = [r, g, b].map((one) => one / 255).map((one) => one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4);
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const ratio = (one, other) => {
    const [low, high] = [light(one), light(other)].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  };
  const ground = (element) => {
    let found = { r: 0, g: 0, b: 0, a: 0 };
    for (let at = element; at && found.a < 1; at = at.parentElement) { found = over(found, parse(getComputedStyle(at).backgroundColor)); }
    const dark = getComputedStyle(document.documentElement).colorScheme === "dark";
    return over(found, dark ? { r: 18, g: 18, b: 18, a: 1 } : { r: 255, g: 255, b: 255, a: 1 });
  };
  const seen = (element) => element.checkVisibility({ checkOpacity: true, checkVisibilityCSS: true, contentVisibilityAuto: true })
    && element.getClientRects().length > 0;
  const texts = () => {
    const found = [], walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    for (let node = walk.nextNode(); node; node = walk.nextNode()) {
      const said = node.textContent.trim(), at = node.parentElement;
      if (said && !["SCRIPT", "STYLE", "NOSCRIPT", "OPTION", "DATALIST"].includes(at.tagName) && !at.closest(".skip:not(:focus)") && seen(at)) { found.push([said, at]); }
    }
    return found;
  };
  const opaque = (element) => {
    let found = 1;
    for (let at = element; at; at = at.parentElement) { found *= Number(getComputedStyle(at).opacity); }
    return found;
  };
  const judged = (text, element, style) => {
    const under = ground(element), own = parse(style.color);
    const colour = over({ ...own, a: own.a * opaque(element) }, under);
    const size = parseFloat(style.fontSize), large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    const found = ratio(colour, under);
    return { text: text.slice(0, 60), of: element.outerHTML.slice(0, 80), ratio: Math.round(found * 100) / 100, least: large ? 3 : 4.5,
      enough: found >= (large ? 3 : 4.5) };
  };
  const fields = () => [...document.querySelectorAll("input:not([type=hidden]),select,textarea,button")].filter(seen);
  const faint = () => {
    const found = texts().map(([said, at]) => judged(said, at, getComputedStyle(at)));
    for (const one of fields()) {
      const style = getComputedStyle(one);
      if (one.value) { found.push(judged(one.value, one, style)); }
      if (one.placeholder) { found.push(judged(one.placeholder, one, getComputedStyle(one, "::placeholder"))); }
      const edge = ratio(over(parse(style.borderTopColor), ground(one.parentElement)), ground(one.parentElement));
      const fill = ratio(ground(one), ground(one.parentElement));
      if (Math.max(edge, fill) < 3) { found.push({ text: "its edge", of: one.outerHTML.slice(0, 80), ratio: edge, least: 3, enough: false }); }
    }
    return found.filter((one) => !one.enough);
  };
  const widest = () => {
    const room = document.documentElement.clientWidth;
    const past = [...document.body.querySelectorAll("*")].filter((one) => one.getBoundingClientRect().right > room + 1 && !one.closest(".wide"));
    return past.slice(0, 3).map((one) => one.outerHTML.slice(0, 100));
  };
  const CLICKED = "form,button,nav,header.top,dialog,.noprint,.skip";
  const said = () => [...new Set(texts().filter(([, at]) => !at.closest(CLICKED)).map(([text]) => text.replace(/\s+/g, " ")))];
  // What is laid out and yet not seen: in a box that scrolls or ends before it.
  const cut = () => [...document.querySelectorAll("main *")].filter((one) => seen(one) && !one.closest(CLICKED)
    && ["auto", "scroll", "hidden", "clip"].includes(getComputedStyle(one).overflowX)
    && (one.scrollWidth > one.clientWidth + 1 || one.scrollHeight > one.clientHeight + 1) && one.clientWidth > 0)
    .map((one) => one.outerHTML.slice(0, 100));
  const CONTROLS = "a[href],button,input:not([type=hidden]),select,textarea,summary,[tabindex]";
  const all = () => [...document.querySelectorAll(CONTROLS)].filter((one) => seen(one) && !one.disabled && !one.closest("dialog:not([open])"));
  const unfocused = () => {
    const found = [];
    for (const one of all()) {
      one.focus();
      const style = getComputedStyle(one);
      const shown = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2
        && ratio(parse(style.outlineColor), ground(one.parentElement)) >= 3;
      if (document.activeElement !== one || !shown || one.tabIndex !== 0) { found.push(one.outerHTML.slice(0, 100)); }
    }
    return found;
  };
  return {
    faint, widest, said, cut, unfocused,
    counted: () => texts().length,
    controls: () => all().length,
    unreached: (reached) => all().filter((one) => !reached.has(one)).map((one) => one.outerHTML.slice(0, 100)),
    openAll: () => document.querySelectorAll("details").forEach((one) => { one.open = true; }),
    closeAll: () => document.querySelectorAll("details").forEach((one) => { one.open = false; }),
  };
})();
