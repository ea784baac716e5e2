"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const regions = data.regions;
  const classes = new Map(data.classes.map((item) => [item.id, item]));
  const KEYS = "123456789abcdefghijklmnopqrstuvwxyz";
  const COLUMNS = data.columns;
  const LABELS = {done: "Suggestions accepted", unsure: "Unsure", skipped: "Skipped", todo: "To do"};
  const HISTORY = 500;
  const store = ["geohsal", data.run, data.round, data.request, data.file].join(":");
  const $ = (id) => document.getElementById(id);
  const blank = () => ({reviewer: "", at: 0, decisions: {}, history: []});
  let state = load();
  let overlay = true;
  let closer = false;
  let unsaved = false;
  let stored = true;

  // --- what has been decided -------------------------------------------------------------------

  function load() {
    try {
      const found = JSON.parse(localStorage.getItem(store));
      return found && found.decisions ? {...blank(), ...found} : blank();
    } catch {
      return blank();
    }
  }

  function save() {
    unsaved = true;
    try {
      localStorage.setItem(store, JSON.stringify(state));
      stored = true;
    } catch {
      stored = false;
    }
    warn();
  }

  function warn() {
    const banner = $("banner");
    banner.hidden = stored;
    banner.textContent = stored ? "" :
      "This browser keeps nothing: download decisions.csv before you close or reload the page.";
  }

  const region = () => regions[state.at];
  const decision = (id) => state.decisions[id] || {status: "todo", assigned: null, notes: ""};
  const isDecided = (id) => decision(id).status !== "todo";

  function decide(status, assigned = null) {
    const id = region().id;
    const place = state.at + 1;
    remember(id);
    state.decisions[id] = {
      ...decision(id), status, assigned, by: state.reviewer, ms: Date.now(),
    };
    const next = state.at + 1 < regions.length ? state.at + 1 : firstTodo(0);
    if (next >= 0) state.at = next;
    save();
    show();
    const left = regions.length - countDecided();
    const rest = left ? `${left} to do.` : "All regions are decided: download decisions.csv.";
    say(`Region ${place}: ${verdict(id)}. ${rest}`);
    if ($("chip").getBoundingClientRect().bottom < 0) $("look").scrollIntoView();  // small screens
  }

  function remember(id) {
    state.history.push([id, state.decisions[id] || null]);
    if (state.history.length > HISTORY) state.history.shift();
  }

  function undo() {
    const last = state.history.pop();
    if (!last) return;
    const [id, before] = last;
    const notes = decision(id).notes;
    if (before) state.decisions[id] = {...before, notes};
    else if (notes) state.decisions[id] = {status: "todo", assigned: null, notes};
    else delete state.decisions[id];
    state.at = Math.max(0, regions.findIndex((item) => item.id === id));
    save();
    show();
    say("Taken back.");
  }

  function note(text) {
    const id = region().id;
    state.decisions[id] = {...decision(id), notes: text};
    save();
  }

  const countDecided = () => regions.filter((item) => isDecided(item.id)).length;

  function firstTodo(from) {
    for (let step = 0; step < regions.length; step += 1) {
      const index = (from + step) % regions.length;
      if (!isDecided(regions[index].id)) return index;
    }
    return -1;
  }

  function go(index) {
    if (index < 0 || index >= regions.length) return;
    state.at = index;
    save();
    show();
  }

  // --- the file --------------------------------------------------------------------------------

  function cell(value) {
    let text = value === null || value === undefined ? "" : String(value);
    if (/^[=+\-@\t\r]/.test(text)) text = `'${text}`;  // a spreadsheet would compute it
    return /[",;\t\r\n]/.test(text) || text !== text.trim() ? `"${text.replaceAll('"', '""')}"` : text;
  }

  function csv() {
    const rows = regions
      .filter((item) => isDecided(item.id) || decision(item.id).notes)
      .map((item) => {
        const found = decision(item.id);
        const values = {
          region_id: item.id,
          status: found.status,
          assigned_class: found.assigned,
          class_name: found.assigned === null ? "" : classes.get(found.assigned).name,
          notes: found.notes,
          reviewed_by: found.by || state.reviewer,
          reviewed_ms: found.ms,
          round: data.round,
          request: data.request,
          format_version: data.format_version,
        };
        return COLUMNS.map((name) => cell(values[name])).join(",");
      });
    return `${[COLUMNS.join(","), ...rows].join("\r\n")}\r\n`;
  }

  function download() {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([csv()], {type: "text/csv"}));
    link.download = data.csv;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    unsaved = false;
    say(`${data.csv} holds ${countDecided()} decisions. Give it to: geohsal ingest`);
  }

  // --- what is shown ---------------------------------------------------------------------------

  function make(name, properties = {}, ...children) {
    const element = Object.assign(document.createElement(name), properties);
    element.append(...children);
    return element;
  }

  function draw(name, attributes) {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    return element;
  }

  function swatch(color) {
    const element = make("span", {className: "swatch", ariaHidden: "true"});
    element.style.background = color;
    return element;
  }

  const nameOf = (id) => (classes.has(id) ? classes.get(id).name : "none");
  const number = (value) => value.toLocaleString("en");
  const percent = (share) => `${Math.round(100 * share)} %`;

  function verdict(id) {
    const found = decision(id);
    return found.status === "done" && found.assigned !== null
      ? `Whole region: ${nameOf(found.assigned)}` : LABELS[found.status];
  }

  function say(text) {
    $("verdict").textContent = text;
    $("verdict").className = "verdict open";
  }

  function show() {
    const item = region();
    $("counts").textContent = `${countDecided()} of ${regions.length} regions decided`;
    $("done").value = countDecided();
    $("done").max = regions.length;
    $("region").textContent = `Region ${state.at + 1} of ${regions.length}`;
    $("verdict").textContent = verdict(item.id);
    $("verdict").className = isDecided(item.id) ? "verdict" : "verdict open";
    $("notes").value = decision(item.id).notes;
    $("previous").disabled = state.at === 0;
    $("next").disabled = state.at === regions.length - 1;
    $("undo").disabled = !state.history.length;
    $("todo").disabled = firstTodo(0) < 0;
    showFacts(item);
    showChip(item);
    showPatches(item);
    showClasses();
  }

  function showFacts(item) {
    const facts = [
      ["Why", item.reason],
      ["Error", `${percent(item.error)} probable; ${percent(item.undecided)} undecided`],
      ["Teacher", nameOf(item.teacher)],
      ["Refined", item.plar === null ? "no verdict" : nameOf(item.plar)],
      ["Place", `${item.scene}, rank ${item.rank}, ${number(item.pixels)} pixels` +
        (item.area === null ? "" : `, ${number(item.area)} m²`) +
        (item.audit ? ", drawn at random" : "")],
      ["Bands", item.bands],
      ["Id", item.id],
    ];
    $("facts").replaceChildren(...facts.flatMap(([term, text]) => [
      make("dt", {textContent: term}), make("dd", {textContent: text}),
    ]));
  }

  function showChip(item) {
    const chip = $("chip");
    const name = $("chip-name");
    name.textContent = `Picture of region ${item.id} with its surroundings; the region is outlined`;
    chip.setAttribute("viewBox", (closer ? item.close : [0, 0, item.width, item.height]).join(" "));
    const parts = [draw("image", {
      href: item.image, width: item.width, height: item.height, preserveAspectRatio: "none",
    })];
    if (overlay) item.patches.forEach((patch, index) => parts.push(draw("path", {
      d: patch.path, class: "patch", fill: classes.get(patch.class).color, "data-patch": index,
    })));
    parts.push(draw("path", {d: item.outline, class: "casing"}));
    parts.push(draw("path", {d: item.outline, class: "outline"}));
    chip.replaceChildren(name, ...parts);
    $("overlay").ariaPressed = String(overlay);
    $("closer").ariaPressed = String(closer);
  }

  function showPatches(item) {
    const pixels = new Map();
    for (const patch of item.patches) {
      pixels.set(patch.class, (pixels.get(patch.class) || 0) + patch.pixels);
    }
    const found = [...pixels].sort((one, other) => other[1] - one[1]).map(([id, count]) => {
      const entry = make("li", {}, swatch(classes.get(id).color), make("span", {
        textContent: `${nameOf(id)}, ${percent(count / item.pixels)}`,
      }));
      entry.addEventListener("pointerenter", () => light(item, id));
      entry.addEventListener("pointerleave", () => light(item, null));
      return entry;
    });
    $("patches").replaceChildren(...found);
  }

  function light(item, id) {
    for (const path of $("chip").querySelectorAll(".patch")) {
      path.classList.toggle("lit", item.patches[path.dataset.patch].class === id);
    }
  }

  const matching = () => {
    const text = $("search").value.trim().toLowerCase();
    return data.classes.filter((item) => item.name.toLowerCase().includes(text));
  };

  function showClasses() {
    const chosen = decision(region().id).assigned;
    const buttons = matching().map((item) => {
      const button = make("button", {type: "button", title: item.description},
        swatch(item.color), make("span", {className: "name", textContent: item.name}));
      const key = KEYS[data.classes.indexOf(item)];
      if (key) button.append(make("kbd", {textContent: key}));
      button.dataset.class = item.id;
      button.ariaPressed = String(item.id === chosen);
      button.addEventListener("click", () => assign(item.id));
      return button;
    });
    $("classes").replaceChildren(...(buttons.length ? buttons
      : [make("p", {textContent: "No class has that in its name."})]));
  }

  function assign(id) {
    $("search").value = "";
    decide("done", id);
  }

  // --- hands on --------------------------------------------------------------------------------

  const commands = {
    Enter: () => decide("done"),
    "?": () => decide("unsure"),
    0: () => decide("skipped"),
    Backspace: undo,
    ArrowLeft: () => go(state.at - 1),
    ArrowRight: () => go(state.at + 1),
    ArrowDown: () => go(firstTodo(state.at + 1)),
    " ": () => { overlay = !overlay; showChip(region()); },
    "+": () => { closer = !closer; showChip(region()); },
    "/": () => $("search").focus(),
  };

  function pressed(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    const target = event.target;
    if (target === $("search")) return searching(event);
    if (target.matches("input, textarea")) {
      if (event.key === "Escape") target.blur();
      return;
    }
    if (event.repeat && !event.key.startsWith("Arrow")) {  // a key held down decides once
      event.preventDefault();
      return;
    }
    // a focused button answers to these itself
    if (target.matches("button") && (event.key === "Enter" || event.key === " ")) return;
    const place = event.key.length === 1 ? KEYS.indexOf(event.key.toLowerCase()) : -1;
    const command = commands[event.key];
    if (command) command();
    else if (place >= 0 && place < data.classes.length) assign(data.classes[place].id);
    else return;
    event.preventDefault();
  }

  function searching(event) {
    if (event.key === "Escape" || event.key === "Enter") {
      const found = matching();
      const wanted = $("search").value.trim();
      event.preventDefault();
      $("search").value = "";
      $("search").blur();
      if (event.key === "Enter" && wanted && found.length) assign(found[0].id);
      else showClasses();
    }
  }

  document.addEventListener("keydown", pressed);
  const clicks = {
    accept: "Enter", unsure: "?", skip: "0", undo: "Backspace", previous: "ArrowLeft",
    next: "ArrowRight", todo: "ArrowDown", overlay: " ", closer: "+",
  };
  for (const [id, key] of Object.entries(clicks)) $(id).addEventListener("click", commands[key]);
  $("download").addEventListener("click", download);
  $("search").addEventListener("input", showClasses);
  $("notes").addEventListener("input", () => note($("notes").value));
  $("reviewer").addEventListener("input", () => { state.reviewer = $("reviewer").value; save(); });
  window.addEventListener("storage", (event) => {
    if (event.key === store) { state = load(); show(); }  // another tab
  });
  window.addEventListener("beforeunload", (event) => {
    if (unsaved && !stored) event.preventDefault();
  });

  $("file").textContent = data.file;
  $("reviewer").value = state.reviewer;
  state.at = Math.min(Math.max(0, state.at), regions.length - 1);
  if (regions.length) show();
})();
