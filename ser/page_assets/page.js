// The behaviour of results.html: sortable tables, and the runs with their utterances.
// Text from the data is only ever set as text, never as HTML.
"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const data = JSON.parse($("data").textContent);
  const SVG = "http://www.w3.org/2000/svg";
  const PAGE = 100;  // utterances shown at a time

  // An element with attributes, and what is in it.
  function make(name, attributes = {}, ...content) {
    const element = ["svg", "path", "polyline", "line", "circle", "title"].includes(name)
      ? document.createElementNS(SVG, name) : document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
      if (key.startsWith("--")) element.style.setProperty(key, value);
      else if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
      else if (value !== null && value !== false) element.setAttribute(key, value === true ? "" : value);
    }
    element.append(...content);
    return element;
  }

  // ---- Light and dark

  const dark = matchMedia("(prefers-color-scheme: dark)");
  const root = document.documentElement;
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : dark.matches);
  function store(key, value) {
    try { return value === undefined ? localStorage.getItem(key) : localStorage.setItem(key, value); }
    catch { return null; }  // a browser may refuse it for files
  }
  function showTheme() {
    $("theme").textContent = isDark() ? "Light" : "Dark";
    $("theme").setAttribute("aria-label", `Change to ${isDark() ? "light" : "dark"} colours`);
    drawCurves();
  }
  if (["light", "dark"].includes(store("theme"))) root.dataset.theme = store("theme");
  $("theme").addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    store("theme", root.dataset.theme);
    showTheme();
  });
  dark.addEventListener("change", showTheme);
  // A colour of page.css as canvas needs it.
  function colour(name) {
    const probe = make("i");
    probe.style.color = `var(${name})`;
    document.body.append(probe);
    const value = getComputedStyle(probe).color;
    probe.remove();
    return value;
  }

  // ---- Sorting

  // What a cell says as a number: its first one, such as 40.8 in "40.8 ± 3.1", or 3 in "3 to 5"; null for "not run" and
  // for text, such as "2 layers".
  function numberIn(text) {
    const match = /^(<\s*)?([+\-\u2212]?)(\d[\d,]*(?:\.\d+)?|\.\d+)(?![\w.])(?!\s+(?!to\s)[a-z])/i.exec(text.trim());
    if (!match) return null;
    const value = Number(match[3].replaceAll(",", "")) * (match[2] && match[2] !== "+" ? -1 : 1);
    return match[1] ? value - 1e-9 : value;  // "< 0.001" comes before 0.001
  }
  const isNone = (text) => ["", "–", "-"].includes(text.trim()) || /^(not run|outdated)/.test(text.trim());
  // Compares two values; what is null comes last in both directions.
  function compare(one, other, sign) {
    if (one === null || other === null) return (one === null) - (other === null);
    return sign * (typeof one === "number" ? one - other : one.localeCompare(other, "en", { numeric: true }));
  }
  // Makes the heads of a table into buttons; sort(column, direction) puts the rows in order.
  function sortable(head, sort) {
    [...head.cells].forEach((cell, column) => {
      if ("fixed" in cell.dataset) return;
      const button = make("button", { type: "button" }, ...cell.childNodes);
      cell.append(button);
      button.addEventListener("click", () => {
        const next = cell.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
        for (const other of head.cells) other.removeAttribute("aria-sort");
        cell.setAttribute("aria-sort", next);
        sort(column, next === "ascending" ? 1 : -1);
      });
    });
  }
  function prepareTable(table) {
    const body = table.tBodies[0], rows = [...body.rows];
    const titles = [...table.tHead.rows[0].cells].map((cell) => cell.textContent);
    const columns = titles.map((title, column) => {
      const texts = rows.map((row) => row.cells[column]?.textContent.trim() ?? "");
      const said = texts.filter((text) => !isNone(text));
      const isNumber = said.length > 0 && said.every((text) => numberIn(text) !== null);
      rows.forEach((row, place) => {
        row.cells[column]?.classList.toggle("number", isNumber || (isNone(texts[place]) && !said.length));
        row.cells[column]?.classList.toggle("none", isNone(texts[place]));
      });
      table.tHead.rows[0].cells[column].classList.toggle("number", isNumber || !said.length);
      return texts.map((text) => (isNone(text) ? null : isNumber ? numberIn(text) : text));
    });
    const places = new Map(rows.map((row, place) => [row, place]));
    sortable(table.tHead.rows[0], (column, sign) => {
      const value = (row) => columns[column][places.get(row)];
      body.append(...rows.toSorted((one, other) => compare(value(one), value(other), sign)));
    });
    // The name of a system that has runs leads to them.
    for (const cell of rows.flatMap((row) => [...row.cells].slice(0, 2))) {
      const name = cell.querySelector("strong") ?? cell, system = name.textContent.replace(/[†‡§¶¹]+$/, "");
      if (Object.hasOwn(data.systems, system)) {
        const open = () => chooseSystem(system);
        name.replaceChildren(make("a", { href: "#look", title: "Show its runs", onclick: open }, system), name.textContent.slice(system.length));
      }
    }
  }
  document.querySelectorAll(".report table").forEach((table) => {
    prepareTable(table);
    const box = table.parentElement;
    let above = box.previousElementSibling;
    while (above && !/^H\d$/.test(above.tagName)) above = above.previousElementSibling;
    const name = above ? above.textContent : data.corpus;
    for (const [key, value] of [["tabindex", 0], ["role", "region"], ["aria-label", `Table: ${name}`]]) box.setAttribute(key, value);
  });

  // ---- What is chosen

  let started = false;  // the address keeps what the user has chosen
  const chosen = { row: null, run: "", utt: null, colourBy: "class", countAll: true };
  const runOf = () => chosen.row.runs[chosen.run];
  const rowsOf = (system) => data.rows.filter((row) => row.system === system);
  const text = (value) => value.toFixed(1);
  function options(select, values, title = (value) => value, value = null) {
    select.replaceChildren(...values.map((one) => make("option", { value: one }, title(one))));
    if (value !== null && values.includes(value)) select.value = value;
  }

  // Reads the predicted class and the probabilities (per cent) of a run; its utterances as objects.
  function utterancesOf(row, run) {
    if (!run.answers) return null;
    const set = data.sets[run.set], width = 2 * (row.classes.length + 1);
    const digits = (place) => parseInt(run.answers.slice(place, place + 2), 36);
    return set.utts.map((number, place) => {
      const start = place * width, shares = row.classes.map((_, c) => digits(start + 2 + 2 * c) / 10);
      const { utt, speaker } = data.utts[number];
      return { number, utt, speaker, true: set.true[place], predicted: digits(start), shares };
    });
  }

  function chooseSystem(system, protocol = null, run = null) {
    const rows = rowsOf(system);
    $("choose-system").value = system;
    const before = protocol ?? $("choose-protocol").value;
    options($("choose-protocol"), rows.map((row) => row.protocol), undefined, before);
    chooseProtocol(run);
  }
  function chooseProtocol(run = null) {
    chosen.row = rowsOf($("choose-system").value).find((row) => row.protocol === $("choose-protocol").value);
    const { row } = chosen;
    const title = (name) => `${name}: WA ${row.runs[name].wa}, UA ${row.runs[name].ua}`;
    const names = Object.keys(row.runs).sort((one, other) => one.localeCompare(other, "en", { numeric: true }));
    options($("choose-run"), names, title, run ?? row.attention?.run ?? null);
    $("about-row").textContent =
      `${data.systems[row.system]}. Protocol ${row.protocol}: ${data.protocols[row.protocol]}.`;
    drawTsne();
    chooseRun();
  }
  function chooseRun() {
    chosen.run = $("choose-run").value;
    const { row, run } = chosen;
    chosen.utts = utterancesOf(row, runOf());
    if (started) try { history.replaceState(null, "", `#run/${[row.system, row.protocol, run].map(encodeURIComponent).join("/")}`); }
    catch { /* a browser may refuse it for files */ }
    drawConfusion();
    drawCurves();
    startUtterances();
  }

  // ---- Confusion matrix

  function drawConfusion() {
    const { classes, runs } = chosen.row, counted = chosen.countAll ? Object.values(runs) : [runOf()];
    const counts = classes.map((_, r) => classes.map((_, c) => counted.reduce((sum, run) => sum + run.counts[r][c], 0)));
    $("count-all").parentNode.hidden = Object.keys(runs).length < 2;
    $("count-all").textContent = `sum of all ${Object.keys(runs).length} runs`;
    $("count-all").setAttribute("aria-pressed", chosen.countAll);
    $("count-one").setAttribute("aria-pressed", !chosen.countAll);
    const head = make("tr", {}, make("td"), ...classes.map((name) => make("th", { scope: "col" }, name)));
    const rows = classes.map((name, r) => {
      const total = counts[r].reduce((one, other) => one + other, 0);
      return make("tr", {}, make("th", { scope: "row" }, name), ...classes.map((other, c) => {
        const share = total ? (100 * counts[r][c]) / total : 0;
        const label = `${name} predicted as ${other}: ${text(share)} per cent, ${counts[r][c]} utterances`;
        const list = () => filterBy({ true: String(r), predicted: String(c) });
        const button = { type: "button", class: r === c ? "same" : null, "aria-label": label, title: label, "--share": share, onclick: list };
        return make("td", {}, make("button", button, share.toFixed(0), make("small", {}, String(counts[r][c]))));
      }));
    });
    $("confusion").replaceChildren(make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows)));
  }
  for (const [id, all] of [["count-all", true], ["count-one", false]]) {
    $(id).addEventListener("click", () => { chosen.countAll = all; drawConfusion(); });
  }

  // ---- Learning curves

  let plots = [];
  function drawCurves() {
    plots.forEach((plot) => plot.destroy());
    plots = [];
    const box = $("curves");
    box.replaceChildren();
    if (!chosen.row) return;
    const others = Object.entries(chosen.row.runs).filter(([name, run]) => run.curves && name !== chosen.run);
    const own = runOf().curves;
    if (!own) {
      box.append(make("p", { class: "quiet" }, others.length ? "This run has none." : "No learning curves were stored with these scores; a classical model has none."));
      return;
    }
    const { part } = chosen.row;
    box.append(make("p", { class: "line quiet" },
      make("span", { class: "mark dashed" }), "training set",
      ...(own.dev_loss ? [make("span", { class: "mark" }), `${part} set`] : []),
      ...(others.length && own.dev_loss ? [`; pale: the ${part} set of the other runs`] : [])));
    for (const [key, title] of [["loss", "Loss"], ["wa", "WA, per cent"]]) drawPlot(box, key, title, own, others.map(([, run]) => run.curves));
  }
  function drawPlot(box, key, title, own, others) {
    const [train, dev, pale] = [`train_${key}`, `dev_${key}`, others.filter((curves) => curves[`dev_${key}`])];
    if (!own[train]) return;
    const length = Math.max(own[train].length, ...pale.map((curves) => curves[dev].length));
    const line = (values) => Array.from({ length }, (_, epoch) => values[epoch] ?? null);
    const strong = colour("--text"), quiet = colour("--quiet"), grid = colour("--line");
    const series = [{}, ...pale.map(() => ({ stroke: grid, width: 1, points: { show: false } }))];
    const lines = [line(Array.from({ length }, (_, epoch) => epoch + 1)), ...pale.map((curves) => line(curves[dev]))];
    const points = { show: length < 4 };
    series.push({ stroke: quiet, width: 1.5, dash: [5, 4], points });
    lines.push(line(own[train]));
    if (own[dev]) {
      series.push({ stroke: strong, width: 2, points });
      lines.push(line(own[dev]));
    }
    const name = make("h4", {}, title);
    const frame = make("div", { class: "plot", tabindex: 0, role: "img" });
    box.append(name, frame);
    const tell = (epoch) => {
      const values = [`training ${own[train][epoch]}`, ...(own[dev] ? [`${chosen.row.part} ${own[dev][epoch]}`] : [])];
      name.textContent = own[train][epoch] === undefined ? title : `${title}, epoch ${epoch + 1}: ${values.join(", ")}`;
      frame.setAttribute("aria-label", `${name.textContent}. Left and right arrows move the epoch.`);
    };
    const axis = { stroke: quiet, grid: { stroke: grid, width: 0.5 }, ticks: { stroke: grid, width: 0.5 }, font: "11px system-ui, sans-serif" };
    const whole = (plot, ticks) => ticks.map((tick) => (Number.isInteger(tick) ? tick : null));
    const plot = new uPlot({
      width: Math.max(frame.clientWidth, 200), height: 165, padding: [8, 10, 0, 0], series, legend: { show: false },
      scales: { x: { time: false, range: (_, low, high) => (low === high ? [low - 0.5, high + 0.5] : [low, high]) } },
      axes: [{ ...axis, size: 26, filter: whole }, { ...axis, size: 46 }],
      cursor: { y: false, drag: { x: false, y: false }, points: { show: false } },
      hooks: { setCursor: [(plot) => tell(plot.cursor.idx ?? -1)] },
    }, lines, frame);
    plots.push(plot);
    tell(-1);
    frame.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!step) return;
      event.preventDefault();
      const epoch = Math.min(Math.max((plot.cursor.idx ?? (step > 0 ? -1 : length)) + step, 0), length - 1);
      plot.setCursor({ left: plot.valToPos(epoch + 1, "x"), top: 1 });
    });
  }
  let width = 0;
  new ResizeObserver(() => {
    if ($("curves").clientWidth === width) return;
    width = $("curves").clientWidth;
    plots.forEach((plot) => plot.setSize({ width: Math.max(width, 200), height: 165 }));
  }).observe($("curves"));

  // ---- t-SNE

  const NAMED = ["#3b7dd8", "#e08a1e", "#2a9d6f", "#c8452f", "#8e5bc0", "#c06fa0", "#4fb3c8", "#8a7d2b", "#7d8791", "#6b4f3a"];
  const colourOf = (place, number) => (number <= NAMED.length ? NAMED[place] : `hsl(${Math.round((360 * place) / number)} 60% 50%)`);
  function drawTsne() {
    const plane = chosen.row.tsne, speakers = new Map(data.utts.map(({ utt, speaker }) => [utt, speaker]));
    $("tsne-panel").hidden = !plane;
    if (!plane) return;
    const bySpeaker = chosen.colourBy === "speaker";
    $("by-class").setAttribute("aria-pressed", !bySpeaker);
    $("by-speaker").setAttribute("aria-pressed", bySpeaker);
    const groups = plane.utts.map((utt, place) => (bySpeaker ? speakers.get(utt) || "unknown" : plane.classes[place]));
    const names = bySpeaker ? [...new Set(groups)].sort() : chosen.row.classes.filter((name) => plane.classes.includes(name));
    const fill = (name) => colourOf(names.indexOf(name), names.length);
    $("tsne-title").textContent = plane.title;
    const circles = [];  // of both planes
    const planes = ["Input features", "Output representation"].map((title, half) => {
      const at = plane.places.map((place) => place.slice(2 * half, 2 * half + 2));
      const [lows, highs] = [Math.min, Math.max].map((edge) => [0, 1].map((axis) => edge(...at.map((place) => place[axis]))));
      const scale = ([x, y]) => [20 + (360 * (x - lows[0])) / (highs[0] - lows[0] || 1), 280 - (260 * (y - lows[1])) / (highs[1] - lows[1] || 1)];
      const spots = at.map(scale);
      const svg = make("svg", { viewBox: "0 0 400 300", tabindex: 0, role: "img", "aria-label": `${title}: ${plane.utts.length} points. Arrow keys go through them, Enter chooses one.` });
      const own = spots.map(([x, y], place) => make("circle", { cx: x.toFixed(1), cy: y.toFixed(1), r: 4, "--colour": fill(groups[place]) }));
      svg.append(...own);
      circles.push(own);
      let current = -1;
      const show = (place) => {
        current = place;
        circles.forEach((group) => group.forEach((circle, other) => circle.classList.toggle("chosen", other === place)));
        circles.forEach((group) => group[place].parentNode.append(group[place]));  // in front
        tellPoint(plane.utts[place], plane.classes[place], speakers.get(plane.utts[place]));
      };
      svg.addEventListener("pointermove", (event) => {
        const box = svg.getBoundingClientRect();
        const [x, y] = [((event.clientX - box.left) / box.width) * 400, ((event.clientY - box.top) / box.height) * 300];
        const far = spots.map(([a, b]) => (a - x) ** 2 + (b - y) ** 2);
        const near = far.indexOf(Math.min(...far));
        if (far[near] < 400 && near !== current) show(near);
      });
      const open = () => current >= 0 && openUtterance(plane.utts[current]);
      svg.addEventListener("click", open);
      svg.addEventListener("keydown", (event) => {
        const step = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 }[event.key];
        if (step) show((current + step + spots.length) % spots.length);
        else if (event.key === "Enter") open();
        else return;
        event.preventDefault();
      });
      return make("div", {}, make("h4", {}, title), svg);
    });
    $("tsne").replaceChildren(...planes);
    $("tsne-point").textContent = "Move over a point to see its utterance; press it to listen.";
    $("tsne-key").replaceChildren(...names.map((name) => make("button", { type: "button", "aria-pressed": false, "--colour": fill(name), onclick: (event) => {
      const on = event.currentTarget.getAttribute("aria-pressed") !== "true";
      for (const key of $("tsne-key").children) key.setAttribute("aria-pressed", on && key === event.currentTarget);
      circles.forEach((group) => group.forEach((circle, place) => circle.classList.toggle("dim", on && groups[place] !== name)));
    } }, name)));
  }
  function tellPoint(utt, name, speaker) {
    const found = chosen.utts?.find((one) => one.utt === utt);
    const predicted = found ? `, predicted ${chosen.row.classes[found.predicted]} by ${chosen.run}` : "";
    $("tsne-point").textContent = `${utt}: ${name}${predicted}${speaker ? `, speaker ${speaker}` : ""}`;
  }
  for (const [id, by] of [["by-class", "class"], ["by-speaker", "speaker"]]) {
    $(id).addEventListener("click", () => { chosen.colourBy = by; drawTsne(); });
  }
  function openUtterance(utt) {
    const name = $("tsne-panel").hidden ? "" : /fold \d+, seed \d+/.exec(chosen.row.tsne.title)?.[0] ?? "";
    const run = name.replace(/fold (\d+), seed (\d+)/, "fold$1_seed$2");
    if (!chosen.utts?.some((one) => one.utt === utt) && chosen.row.runs[run]) {
      $("choose-run").value = run;  // the one whose points these are
      chooseRun();
    }
    if (!chosen.utts?.some((one) => one.utt === utt)) return;
    $("filters").reset();
    $("filter-name").value = utt;
    listUtterances();
    $("player").scrollIntoView({ block: "center" });
  }

  // ---- Utterances

  let listed = [], shown = PAGE, order = { key: "own", sign: 1 };
  const KEYS = {  // what a column sorts by
    utt: (one) => one.utt, speaker: (one) => one.speaker, true: (one) => chosen.row.classes[one.true],
    predicted: (one) => chosen.row.classes[one.predicted], own: (one) => one.shares[one.true],
  };
  function startUtterances() {
    const { row, utts } = chosen;
    $("utts-all").hidden = !utts;
    $("utts-none").hidden = Boolean(utts);
    if (!utts) {
      const kept = Object.keys(row.runs).filter((name) => row.runs[name].answers);
      $("utts-none").textContent = `To keep this page small, it has the utterances of ${kept.length} of the row's ${Object.keys(row.runs).length} runs` +
        `${kept.length ? ` (${kept.join(", ")})` : ""}. Those of the others are in results/${row.system}/${row.protocol}/.`;
      stop();
      return;
    }
    const keep = Object.fromEntries(["true", "predicted", "speaker"].map((name) => [name, $(`filter-${name}`).value]));
    const places = row.classes.map((_, place) => String(place)), speakers = [...new Set(utts.map((one) => one.speaker))].filter(Boolean).sort();
    for (const name of ["true", "predicted"]) options($(`filter-${name}`), ["", ...places], (place) => (place === "" ? "all" : row.classes[place]), keep[name]);
    options($("filter-speaker"), ["", ...speakers], (name) => name || "all", keep.speaker);
    $("filter-speaker").disabled = !speakers.length;
    const heads = [["Sound", null], ["Utterance", "utt"], ...(speakers.length ? [["Speaker", "speaker"]] : []), ["True", "true"], ["Predicted", "predicted"],
      ["P(true), %", "own"], ...row.classes.map((name, place) => [name, place])];
    const head = make("tr", {}, ...heads.map(([title, key]) => make("th", { scope: "col", "data-fixed": key === null, class: typeof key === "number" || key === "own" ? "number" : null }, title)));
    $("utts").tHead.replaceChildren(head);
    sortable(head, (column, sign) => { order = { key: heads[column][1], sign }; listUtterances(); });
    const column = Math.max(heads.findIndex(([, key]) => key === order.key), 0);
    if (column) head.cells[column].setAttribute("aria-sort", order.sign > 0 ? "ascending" : "descending");
    listUtterances();
  }
  function filterBy(values) {
    $("filters").reset();
    for (const [name, value] of Object.entries(values)) $(`filter-${name}`).value = value;
    if (chosen.utts) listUtterances();
  }
  function listUtterances() {
    const [own, predicted, speaker, right, part] = ["true", "predicted", "speaker", "right", "name"].map((name) => $(`filter-${name}`).value);
    const value = typeof order.key === "number" ? (one) => one.shares[order.key] : KEYS[order.key];
    listed = chosen.utts.filter((one) =>
      (own === "" || one.true === Number(own)) && (predicted === "" || one.predicted === Number(predicted)) &&
      (speaker === "" || one.speaker === speaker) && (right === "" || (right === "right") === (one.true === one.predicted)) &&
      one.utt.toLowerCase().includes(part.trim().toLowerCase()));
    listed.sort((one, other) => compare(value(one), value(other), order.sign) || compare(one.utt, other.utt, 1));
    shown = PAGE;
    chosen.utt = null;
    showRows();
    if (listed.length) chooseUtterance(listed[0]);
    else { stop(); $("player").hidden = true; }
  }
  function showRows() {
    const { row } = chosen, hasSpeakers = !$("filter-speaker").disabled;
    const some = listed.slice(0, shown), left = listed.length - some.length;
    const wrong = listed.filter((one) => one.true !== one.predicted).length;
    $("utts-count").textContent = `${listed.length} of ${chosen.utts.length} utterances, ${wrong} wrong` +
      `${left ? `; the first ${some.length} are shown` : ""}. Up and down arrows choose one; Enter plays it.`;
    $("utts").tBodies[0].replaceChildren(...some.map((one) => {
      const play = make("button", { type: "button", tabindex: -1, "aria-label": `Play ${one.utt}` }, data.utts[one.number].address ? "\u25b6" : "\u2013");
      const cells = [make("td", {}, play), make("td", {}, one.utt), ...(hasSpeakers ? [make("td", {}, one.speaker)] : []),
        make("td", {}, row.classes[one.true]), make("td", { class: one.true === one.predicted ? null : "wrong" }, row.classes[one.predicted]),
        make("td", { class: "number" }, text(one.shares[one.true])),
        ...one.shares.map((share, c) => make("td", { class: c === one.true ? "share true" : "share", "--share": share }, text(share)))];
      const line = make("tr", {}, ...cells);
      one.line = line;
      line.addEventListener("click", (event) => { chooseUtterance(one); if (event.target === play) start(); });
      return line;
    }));
    $("more").hidden = !left;
    $("more").textContent = `Show ${Math.min(PAGE, left)} more`;
    markLine();
  }
  function markLine() {
    for (const one of listed) {
      if (!one.line?.isConnected) continue;
      const is = one === chosen.utt;
      one.line.classList.toggle("chosen", is);
      one.line.querySelector("button").tabIndex = is ? 0 : -1;
    }
  }
  $("more").addEventListener("click", () => { shown += PAGE; showRows(); });
  $("filters").addEventListener("input", listUtterances);
  $("filters").addEventListener("reset", () => setTimeout(() => chosen.utts && listUtterances()));
  for (const form of ["filters", "choose"]) $(form).addEventListener("submit", (event) => event.preventDefault());
  $("utts").tBodies[0].addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const next = listed[listed.indexOf(chosen.utt) + step];
    if (!next) return;
    if (!next.line?.isConnected) { shown += PAGE; showRows(); }
    chooseUtterance(next);
    next.line.querySelector("button").focus();
  });

  // ---- Sound

  const audio = $("audio"), wave = $("wave");
  let cursor = null;
  const here = () => data.utts[chosen.utt.number];
  function stop() {
    audio.pause();
    audio.removeAttribute("src");
  }
  function start() {
    if (here().address) audio.play().catch(() => {});  // the event "error" says why
  }
  function chooseUtterance(one) {
    const { row, run } = chosen, sound = data.utts[one.number];
    const name = row.classes[one.true], predicted = row.classes[one.predicted];
    if (chosen.utt !== one) stop();
    chosen.utt = one;
    $("player").hidden = false;
    $("player-title").replaceChildren(make("strong", {}, one.utt), one.speaker && !one.utt.startsWith(one.speaker) ? `, ${one.speaker}` : "", `: ${name}, predicted `,
      make("span", { class: name === predicted ? null : "wrong" }, predicted));
    $("player-note").textContent = sound.note ?? "";
    audio.hidden = wave.hidden = !sound.address;
    $("wave-key").replaceChildren();
    if (sound.address) {
      if (audio.getAttribute("src") !== sound.address) audio.src = sound.address;
      drawWave(one, sound, row.attention?.run === run ? row.attention : null);
    }
    const order = row.classes.map((_, c) => c).sort((a, b) => one.shares[b] - one.shares[a]);
    $("bars").replaceChildren(...order.flatMap((c) => [
      make("span", { class: [c === one.true && "true", c === one.predicted && "predicted"].filter(Boolean).join(" ") }, row.classes[c] + (c === one.true ? " (true)" : "")),
      make("i", { "--share": one.shares[c] }), make("span", {}, text(one.shares[c]))]));
    markLine();
  }
  const bytes = (packed) => Uint8Array.from(atob(packed), (letter) => letter.charCodeAt(0));
  function drawWave(one, sound, attention) {
    const outline = bytes(sound.outline), n = outline.length;
    const upper = [...outline].map((value, place) => `${place + 0.5},${(50 - (46 * value) / 255).toFixed(1)}`);
    const lower = [...outline].map((value, place) => `${place + 0.5},${(50 + (46 * value) / 255).toFixed(1)}`).reverse();
    const svg = make("svg", { viewBox: `0 0 ${n} 100`, preserveAspectRatio: "none", "aria-hidden": "true" },
      make("path", { class: "outline", d: `M${[...upper, ...lower].join("L")}Z` }));
    const curves = Object.entries(attention?.curves?.[one.number] ?? {});
    for (const [, curve] of curves) {
      const line = [...bytes(curve.shares)].map((value, place) => `${place + 0.5},${(97 - (92 * value) / 255).toFixed(1)}`);
      svg.append(make("polyline", { points: line.join(" ") }));
    }
    cursor = svg.appendChild(make("line", { class: "cursor", x1: 0, x2: 0, y1: 0, y2: 100 }));
    wave.replaceChildren(svg);
    wave.setAttribute("aria-valuemax", sound.seconds);
    const key = curves.map(([name, curve], place) => `${place ? "dashed line" : "line"}: ${name.replaceAll("_", " ")}, at most ${curve.highest} times an equal share`);
    if (attention?.note) key.push(`no attention: ${attention.note}`);
    $("wave-key").textContent = `${sound.seconds.toFixed(2)} s${key.length ? `; ${key.join("; ")}` : ""}`;
    moveCursor();
  }
  function moveCursor() {
    if (!cursor || !chosen.utt || !here().seconds) return;
    const share = Math.min(audio.currentTime / here().seconds, 1), n = wave.firstChild.viewBox.baseVal.width;
    for (const end of ["x1", "x2"]) cursor.setAttribute(end, (share * n).toFixed(2));
    wave.setAttribute("aria-valuenow", audio.currentTime.toFixed(2));
  }
  function follow() {
    moveCursor();
    if (!audio.paused && !audio.ended) requestAnimationFrame(follow);
  }
  audio.addEventListener("play", follow);
  for (const event of ["seeked", "timeupdate", "ended"]) audio.addEventListener(event, moveCursor);
  audio.addEventListener("error", () => {
    if (!audio.getAttribute("src")) return;
    $("player-note").textContent = "The recording cannot be played. Open this page where it was written, beside the corpus: " + decodeURIComponent(audio.getAttribute("src"));
  });
  function seek(seconds) {
    const target = Math.min(Math.max(seconds, 0), here().seconds);
    if (audio.readyState) audio.currentTime = target;
    else {
      audio.addEventListener("loadedmetadata", () => { audio.currentTime = target; }, { once: true });
      audio.load();
    }
  }
  wave.addEventListener("click", (event) => {
    const box = wave.getBoundingClientRect();
    seek(((event.clientX - box.left) / box.width) * here().seconds);
  });
  wave.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -0.1, ArrowRight: 0.1, PageDown: -0.5, PageUp: 0.5, Home: -Infinity, End: Infinity }[event.key];
    if (step) seek(audio.currentTime + step);
    else if (event.key === " " || event.key === "Enter") { if (audio.paused) start(); else audio.pause(); }
    else return;
    event.preventDefault();
  });

  // ---- Start

  const systems = Object.keys(data.systems);
  $("look-all").hidden = !systems.length;
  $("look-none").hidden = systems.length > 0;
  if (systems.length) {
    options($("choose-system"), systems);
    $("choose-system").addEventListener("change", (event) => chooseSystem(event.target.value));
    $("choose-protocol").addEventListener("change", () => chooseProtocol());
    $("choose-run").addEventListener("change", chooseRun);
    const heard = data.rows.find((row) => row.attention?.curves);
    const first = rowsOf(data.main)[0] ?? heard ?? data.rows[0];
    let [system, protocol, run] = [first.system, first.protocol, null];
    if (location.hash.startsWith("#run/")) {
      const words = location.hash.slice(5).split("/").map(decodeURIComponent);
      if (rowsOf(words[0]).some((row) => row.protocol === words[1])) {
        [system, protocol, run] = words;
        $("look").scrollIntoView();
      }
    }
    chooseSystem(system, protocol, run);
  }
  started = true;
  showTheme();
  addEventListener("beforeprint", () => { root.dataset.printing = root.dataset.theme ?? ""; root.dataset.theme = "light"; drawCurves(); });
  addEventListener("afterprint", () => {
    if (root.dataset.printing) root.dataset.theme = root.dataset.printing;
    else delete root.dataset.theme;
    delete root.dataset.printing;
    drawCurves();
  });
})();
