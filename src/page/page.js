
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const steps = data.steps;
  const lanes = data.lifelines.slice(0, steps.some((step) => step.arrows.some((arrow) => arrow[0] > 3 || arrow[1] > 3)) ? 5 : 4);
  const SVG = "http://www.w3.org/2000/svg";
  const PAGE = 10;
  // With more steps than this, only those in view are laid out.
  const MANY = 300;
  const RUNTIMES = ["std", "mio", "smol"];
  const operations = new Map(data.operations.map((operation) => [operation.key, operation]));

  // Elements. The contents of a transcript only ever become text nodes.

  const h = (tag, className, ...children) => {
    const element = document.createElement(tag);
    if (className) element.className = className;
    element.append(...children.filter((child) => child !== null && child !== undefined));
    return element;
  };
  const draw = (tag, attributes, ...children) => {
    const element = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  };
  const icon = (...paths) => draw("svg", { viewBox: "0 0 16 16", class: "icon", "aria-hidden": "true" }, ...paths.map((d) => draw("path", { d })));
  const button = (content, label, act) => {
    const element = h("button", "", content);
    element.type = "button";
    element.setAttribute("aria-label", label);
    element.title = label;
    element.addEventListener("click", act);
    return element;
  };
  const span = (ms) => (ms < 1000 ? `${ms} ms` : `${(ms / 1000).toLocaleString("en", { maximumFractionDigits: 3 })} s`);
  const count = (n, what) => `${n.toLocaleString("en")} ${what}${n === 1 ? "" : "s"}`;

  // The state machines, drawn from the tables.

  /** The states of a table in the order in which they appear. */
  const states = (table) => [...new Set([...table.map((row) => row[0]), ...table.map((row) => row[2])])];

  /** A path through points with rounded corners. */
  const rounded = (points) => {
    let path = `M${points[0]}`;
    for (let i = 1; i < points.length - 1; i++) {
      const [before, at, after] = [points[i - 1], points[i], points[i + 1]];
      const towards = (to) => {
        const length = Math.hypot(to[0] - at[0], to[1] - at[1]);
        const r = Math.min(9, length / 2) / length;
        return [at[0] + (to[0] - at[0]) * r, at[1] + (to[1] - at[1]) * r];
      };
      path += `L${towards(before)}Q${at} ${towards(after)}`;
    }
    return `${path}L${points[points.length - 1]}`;
  };

  /**
   * Draws a table: its states in a line, neighbors connected directly, transitions that skip states in arcs on one
   * side, transitions back on the other. Longer arcs lie further out, so that few of them cross.
   */
  const diagram = (table, upright) => {
    const names = states(table);
    const box = upright ? { long: 34, thick: 92, gap: 24 } : { long: 104, thick: 40, gap: 40 };
    const [apart, tip] = [upright ? 15 : 17, 9];
    const begin = (i) => i * (box.long + box.gap);
    const arcs = table
      .map((row, number) => ({ number, from: names.indexOf(row[0]), to: names.indexOf(row[2]) }))
      .map((arc) => ({ ...arc, back: arc.to < arc.from, low: Math.min(arc.from, arc.to), high: Math.max(arc.from, arc.to) }))
      .map((arc) => ({ ...arc, direct: !arc.back && arc.high - arc.low === 1, level: 0 }));
    const bows = arcs.filter((arc) => !arc.direct).sort((a, b) => a.high - a.low - (b.high - b.low));
    for (const arc of bows) {
      const below = bows.filter((other) => other.level > 0 && other.back === arc.back && other.low < arc.high && arc.low < other.high);
      arc.level = 1 + Math.max(0, ...below.map((other) => other.level));
    }
    const deepest = (back) => Math.max(0, ...bows.filter((arc) => arc.back === back).map((arc) => arc.level));
    const top = 4 + deepest(false) * apart + (deepest(false) ? 6 : 0);
    const bottom = 4 + deepest(true) * apart + (deepest(true) ? 6 : 0);
    // Where arcs meet a box: first those that end there, then those that begin there, on either side.
    const ports = new Map();
    for (const back of [false, true]) {
      names.forEach((_, at) => {
        const here = bows.filter((arc) => arc.back === back && (arc.low === at || arc.high === at));
        const ending = here.filter((arc) => arc.high === at).sort((a, b) => a.level - b.level);
        const leaving = here.filter((arc) => arc.low === at).sort((a, b) => b.level - a.level);
        const all = [...ending, ...leaving];
        all.forEach((arc, i) => ports.set(`${arc.number}.${at}`, begin(at) + (box.long * (i + 1)) / (all.length + 1)));
      });
    }
    const point = (main, cross) => (upright ? [bottom + box.thick - cross, main + 4] : [main + 4, top + cross]);
    const svg = draw("svg", { role: "img" });
    const moves = arcs.map((arc) => {
      const group = draw("g", {});
      let points, head;
      if (arc.direct) {
        points = [point(begin(arc.from) + box.long, box.thick / 2), point(begin(arc.to) - tip + 1, box.thick / 2)];
        head = [[begin(arc.to) - tip, box.thick / 2 - 5], [begin(arc.to) - tip, box.thick / 2 + 5], [begin(arc.to), box.thick / 2]];
      } else {
        const [start, end] = [ports.get(`${arc.number}.${arc.from}`), ports.get(`${arc.number}.${arc.to}`)];
        const [edge, away] = arc.back ? [box.thick, 1] : [0, -1];
        const far = edge + away * (6 + arc.level * apart);
        points = [point(start, edge), point(start, far), point(end, far), point(end, edge + away * (tip - 1))];
        head = [[end - 5, edge + away * tip], [end + 5, edge + away * tip], [end, edge]];
      }
      group.append(
        draw("path", { d: rounded(points) }),
        draw("polygon", { points: head.map(([main, cross]) => point(main, cross).join(",")).join(" ") }),
        draw("title", {}, `${table[arc.number][0]} to ${table[arc.number][2]}: ${table[arc.number][1]}`),
      );
      return group;
    });
    const boxes = names.map((name, at) => {
      const [long, thick] = [box.long, box.thick];
      const [x, y] = upright ? point(begin(at), thick) : point(begin(at), 0);
      const [width, height] = upright ? [thick, long] : [long, thick];
      return draw("g", {}, draw("rect", { x, y, width, height, rx: 8 }), draw("text", { x: x + width / 2, y: y + height / 2 }, name));
    });
    svg.append(...moves, ...boxes);
    const [long, thick] = [begin(names.length - 1) + box.long + 8, top + box.thick + bottom];
    svg.setAttribute("viewBox", upright ? `0 0 ${thick} ${long}` : `0 0 ${long} ${thick}`);
    /** Shows a state, and the transitions that led there. */
    const show = (state, taken) => {
      const passed = new Set(taken.flatMap((number) => [table[number][0], table[number][2]]));
      svg.classList.toggle("off", state === null);
      boxes.forEach((group, at) => {
        group.classList.toggle("now", names[at] === state);
        group.classList.toggle("went", passed.has(names[at]));
      });
      moves.forEach((group, number) => group.classList.toggle("taken", taken.includes(number)));
      // Marked elements are drawn on top.
      svg.append(...moves.filter((_, number) => taken.includes(number)), ...boxes);
      svg.setAttribute("aria-label", state === null ? "The state is unknown." : `The state is ${state}.`);
    };
    return { svg, show, length: long };
  };

  const HALVES = [
    { name: "inbound", title: "from the peer", key: "in" },
    { name: "outbound", title: "to the peer", key: "out" },
  ].map((half) => ({ ...half, table: data.machine[half.name], taken: h("span", "moves"), value: h("b"), place: h("div") }));

  const narrow = matchMedia("(max-width: 720px)");
  const layMachine = () => {
    const upright = narrow.matches && !printing;
    for (const half of HALVES) half.drawn = diagram(half.table, upright);
    const longest = Math.max(...HALVES.map((half) => half.drawn.length));
    for (const half of HALVES) {
      half.place.replaceChildren(half.drawn.svg);
      half.place.parentElement.style.setProperty("--share", `${(100 * half.drawn.length) / longest}%`);
    }
  };
  let printing = false;

  const coupling = data.machine.coupling.map((row) => ({ row, item: h("li", "", `${row[0]} + ${row[1]}: ${row[2]}`) }));
  const isCoupled = (row, state) => (row[0] === "any" || row[0] === state.in) && row[1] === state.out;

  // The sequence diagram.

  const x = (lane) => ((lane + 0.5) / lanes.length) * 100;
  const arrow = ([from, to, label]) => {
    const [low, high] = [Math.min(from, to), Math.max(from, to)];
    const line = h("div", "line");
    line.style.left = `${x(low)}%`;
    line.style.width = `${x(high) - x(low)}%`;
    const text = h("div", "label", h("span", "", label));
    text.style.left = `calc(${x(low)}% + 0.5rem)`;
    const element = h("div", from < to ? "arrow right" : "arrow left", line, text);
    if (high - low > 1) {
      const via = h("div", "via");
      via.style.left = `${x(1)}%`;
      element.append(via);
    }
    return element;
  };
  /** Both sides of the first difference. */
  const sides = () => h("dl", "sides",
    h("dt", "", "transcript"), h("dd", "", data.difference.expected), h("dt", "", "core"), h("dd", "", data.difference.actual));
  const rows = steps.map((step, at) => {
    const before = at > 0 ? steps[at - 1].at : step.at;
    const lane = h("div", `lanes n${lanes.length}`, ...step.arrows.map(arrow));
    const time = at === 0 || step.at !== before ? span(step.at) : "";
    const row = h("li", "row step");
    if (step.at > before) row.append(h("div", "gap", `${span(step.at - before)} ${step.at - before === 1 ? "passes" : "pass"}`));
    if (data.difference && data.difference.from === at) row.append(h("div", "differs", "From here on the core does something different", sides()));
    if (!step.state) row.classList.add("untold");
    row.append(h("span", "num", String(at + 1)), h("span", "at", time), lane);
    row.id = `step-${at + 1}`;
    row.setAttribute("role", "option");
    row.setAttribute("aria-selected", "false");
    row.setAttribute("aria-label", `${at + 1}, at ${span(step.at)}: ${step.say}`);
    return row;
  });
  const list = h("ol", steps.length > MANY ? "steps many" : "steps", ...rows);
  list.tabIndex = 0;
  list.setAttribute("role", "listbox");
  list.setAttribute("aria-label", "Steps");
  list.addEventListener("click", (event) => {
    const row = event.target.closest(".step");
    if (row) show(rows.indexOf(row));
  });
  const heads = h("div", "row heads", h("span", "", "#"), h("span", "", "time"),
    h("div", `lanes n${lanes.length}`, ...lanes.map((line) => h("div", "", h("b", "", line.name), h("i", "", line.about)))));
  heads.setAttribute("aria-hidden", "true");

  // The page.

  const position = h("output");
  const [first, previous, next, last] = [
    button(icon("M3 2h2v12H3zM14 2v12L6 8z"), "First step (Home)", () => show(0)),
    button(icon("M12 2v12L3 8z"), "Previous step (Left)", () => show(current - 1)),
    button(icon("M4 2v12l9-6z"), "Next step (Right)", () => show(current + 1)),
    button(icon("M11 2h2v12h-2zM2 2v12l8-6z"), "Last step (End)", () => show(steps.length - 1)),
  ];
  const walk = h("div", "group", first, previous, position, next, last);
  const runtimes = RUNTIMES.map((name, i) => button(name, `What ${name} does (${i + 1})`, () => choose(name)));
  const choice = h("div", "group", ...runtimes);
  choice.setAttribute("role", "group");
  choice.setAttribute("aria-label", "Runtime");
  const theme = button(icon("M8 1a7 7 0 1 0 0 14A7 7 0 0 0 8 1zm0 2v10A5 5 0 0 1 8 3z"), "Light or dark (t)", () => paint(document.documentElement.dataset.theme === "dark" ? "light" : "dark"));
  const say = h("p", "say");
  const notice = h("p", "notice");
  const stepTitle = h("h2");
  const bytes = h("pre", "bytes");
  bytes.tabIndex = 0;
  const omitted = h("p", "omitted");
  const insteadBytes = h("pre", "bytes");
  const insteadOmitted = h("p", "omitted");
  const instead = h("div", "instead", h("h2", "", "What the core does instead"), insteadBytes, insteadOmitted);
  instead.hidden = true;
  const facts = h("dl", "facts");
  const timers = h("div");
  const behaviors = h("div");
  const behaviorTitle = h("h2");
  const live = h("div", "unseen");
  live.setAttribute("aria-live", "polite");
  live.setAttribute("role", "status");

  const legend = h("ul", "legend print", ...HALVES.flatMap((half) => half.table.map((row) => h("li", "", `${half.name}: ${row[0]} \u2192 ${row[2]}: ${row[1]}`))));
  const halves = HALVES.map((half) => {
    return h("div", "half", h("h2", "", h("span", "name", `${half.name}, ${half.title}: `, half.value), half.taken), half.place);
  });
  halves[0].classList.add("with");
  halves[0].append(facts);

  const title = h("h1", "", data.name, h("small", "", "sanserve trace"));
  const about = data.about.filter((line) => line).join(" ");
  const settings = data.settings.length ? h("p", "settings", data.settings.join(" \u00b7 ")) : null;
  if (settings) settings.title = data.settings.join("\n");
  const name = h("hgroup", "", title, about ? h("p", "about", about) : null, settings);
  const sequence = h("section", "panel sequence", heads, list);
  const stage = h("section", "stage",
    h("div", "panel wide", stepTitle, say, notice),
    h("div", "panel wide machine", h("div", "halves", ...halves),
      h("div", "coupling", h("span", "", "Ends when"), h("ul", "", ...coupling.map((each) => each.item))), legend),
    h("div", "panel wide clocks", h("h2", "", "Timers"), timers),
    h("div", "panel", h("h2", "", "In the transcript"), bytes, omitted, instead),
    h("div", "panel", behaviorTitle, behaviors));
  const sign = (className, text) => h("span", "", h("i", className), text);
  const key = (names, text) => h("span", "", ...names.flatMap((name) => [h("kbd", "", name), " "]), text);
  const keyLine = h("footer", "",
    sign("said", "output of the core"), sign("told", "input to the core"), sign("state", "current state"),
    sign("state unsent", "current state, more to send"), sign("move", "transitions of this step"),
    key(["\u2190", "\u2192"], "step"), key(["Home", "End"], "first, last"), key(["PgUp", "PgDn"], "ten steps"),
    key(["1", "2", "3"], "std, mio, smol"), key(["t"], "light, dark"));
  sequence.setAttribute("aria-label", "Sequence diagram");
  stage.setAttribute("aria-label", "The step");
  // The list may be longer than the window, and Space scrolls the focused element.
  stage.tabIndex = 0;
  document.getElementById("app").append(
    h("header", "", name, h("div", "controls", walk, choice, h("div", "group", theme))), sequence, stage, keyLine, live);

  // Showing a step.

  let current = -1;
  let runtime = "mio";

  const fact = (term, ...value) => [h("dt", "", term), h("dd", "", ...value)];
  const showState = (step) => {
    const state = step.state;
    for (const half of HALVES) {
      half.drawn.show(state ? state[half.key] : null, state ? step[half.key] : []);
      half.value.textContent = state ? state[half.key] : "";
      half.taken.classList.toggle("none", !state || step[half.key].length === 0);
      half.taken.replaceChildren(...(state && step[half.key].length
        ? step[half.key].flatMap((number, i) => {
            const row = half.table[number];
            return [i ? "; " : "", h("b", "", `${row[0]} \u2192 ${row[2]}`), ` ${row[1]}`];
          })
        : [state ? "no transition" : ""]));
    }
    // The core may have asked to send a whole response long before the socket has accepted it.
    const unsent = state ? state.unsent : 0;
    HALVES[1].drawn.svg.classList.toggle("unsent", unsent > 0);
    if (unsent > 0) HALVES[1].value.append(h("span", "unsent", ` \u2013 ${count(unsent, "byte")} still to be sent`));
    for (const each of coupling) each.item.classList.toggle("now", Boolean(state) && unsent === 0 && isCoupled(each.row, state));
    if (!state) {
      facts.replaceChildren(...fact("state", "unknown: see above"));
      timers.replaceChildren(h("p", "dim", "unknown"));
      return;
    }
    const held = [[state.unread, "unread"], [state.unheard, "from the script"]]
      .filter(([n]) => n > 0).map(([n, what]) => `${count(n, "byte")} ${what}`);
    facts.replaceChildren(
      ...fact("life", h("b", "", state.life), state.notes.length ? ` \u00b7 ${state.notes.join(" \u00b7 ")}` : ""),
      ...fact("task", h("b", "", state.task), state.stage ? ` \u00b7 ${state.stage}` : ""),
      ...fact("response", state.status ? h("b", "", String(state.status)) : "none yet",
        state.keepAlive === undefined ? "" : state.keepAlive ? " \u00b7 keep-alive" : " \u00b7 closes"),
      ...fact("buffered", held.length ? held.join(", ") : "nothing"),
      ...fact("to send", unsent > 0 ? h("b", "", count(unsent, "byte")) : "nothing"));
    timers.replaceChildren(...(state.timers.length ? state.timers.map((timer) => {
      const [whole, past] = [Math.max(1, timer.until - timer.since), step.at - timer.since];
      const bar = h("i");
      bar.style.width = `${Math.min(100, (100 * Math.max(0, past)) / whole)}%`;
      const element = h("div", past >= whole ? "timer late" : "timer",
        h("div", "of", h("b", "", timer.rule), h("span", "why", timer.why), h("span", "left", past >= whole ? "is due" : `${span(timer.until - step.at)} left, due at ${span(timer.until)}`)),
        h("div", "bar", bar));
      return element;
    }) : [h("p", "dim", "No timer is running.")]));
  };
  const showDoings = () => {
    behaviorTitle.textContent = `What ${runtime} does`;
    const all = steps[current].operations.map((key) => operations.get(key));
    const acts = (operation) => operation[runtime].calls.length > 0;
    // Operations without system calls come after those with some.
    behaviors.replaceChildren(...[...all.filter(acts), ...all.filter((operation) => !acts(operation))].map((operation) => {
      const { calls, note } = operation[runtime];
      return h("div", acts(operation) || all.length === 1 ? "operation" : "operation less", h("h3", "", operation.what), calls.length ? h("ul", "calls", ...calls.map((call) => h("li", "", call))) : null, h("p", "", note));
    }));
  };
  const choose = (name) => {
    runtime = name;
    runtimes.forEach((each, i) => each.setAttribute("aria-pressed", String(RUNTIMES[i] === name)));
    if (current >= 0) showDoings();
  };
  const differs = (at) => {
    const difference = data.difference;
    if (!difference || at < difference.from) return "";
    return at === difference.from
      ? `Transcript: ${difference.expected} \u2013 core: ${difference.actual} (line ${difference.line})`
      : "The states are unknown here: the core differs from the transcript before this step.";
  };
  /** Scrolls to a row. Rows out of view get their size only when shown, so it checks the position again. */
  const reveal = (row, again) => {
    const [seen, own] = [sequence.getBoundingClientRect(), row.getBoundingClientRect()];
    const head = heads.offsetHeight;
    if (own.top < seen.top + head || own.bottom > seen.bottom - 8) {
      sequence.scrollTop += own.top - seen.top - head - (seen.height - head - own.height) / 2;
    }
    if (again && row === rows[current]) requestAnimationFrame(() => reveal(row, again - 1));
  };
  const show = (at) => {
    if (steps.length === 0) return;
    at = Math.max(0, Math.min(steps.length - 1, at));
    if (at === current) return;
    if (current >= 0) rows[current].setAttribute("aria-selected", "false");
    current = at;
    const [step, row] = [steps[at], rows[at]];
    row.setAttribute("aria-selected", "true");
    list.setAttribute("aria-activedescendant", row.id);
    position.textContent = `${at + 1} / ${steps.length}`;
    first.disabled = previous.disabled = at === 0;
    next.disabled = last.disabled = at === steps.length - 1;
    stepTitle.textContent = `Step ${at + 1} of ${steps.length}, at ${span(step.at)} \u00b7 ${step.input ? "input to the core" : "output of the core"}`;
    say.textContent = step.say;
    notice.textContent = differs(at);
    notice.hidden = !notice.textContent;
    bytes.textContent = step.text;
    bytes.scrollTop = 0;
    omitted.textContent = step.left || "";
    omitted.hidden = !step.left;
    const other = data.difference?.from === at ? data.difference.instead : undefined;
    instead.hidden = other === undefined;
    insteadBytes.textContent = other || "";
    insteadOmitted.textContent = data.difference?.insteadLeft || "";
    showState(step);
    showDoings();
    live.textContent = `Step ${at + 1} of ${steps.length}, at ${span(step.at)}. ${step.say}${step.state ? ` Inbound ${step.state.in}, outbound ${step.state.out}.` : ""}`;
    reveal(row, 3);
    try {
      history.replaceState(null, "", `#${at + 1}`);
    } catch {
      // Some browsers forbid this for local files; the address then stays as it is.
    }
  };

  // Keys, the address, the theme, printing.

  const KEYS = {
    ArrowRight: () => show(current + 1), ArrowDown: () => show(current + 1), j: () => show(current + 1),
    ArrowLeft: () => show(current - 1), ArrowUp: () => show(current - 1), k: () => show(current - 1),
    PageDown: () => show(current + PAGE), PageUp: () => show(current - PAGE),
    Home: () => show(0), End: () => show(steps.length - 1),
    t: () => theme.click(), 1: () => choose("std"), 2: () => choose("mio"), 3: () => choose("smol"),
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !Object.hasOwn(KEYS, event.key)) return;
    event.preventDefault();
    KEYS[event.key]();
  });
  const addressed = () => {
    const number = Number.parseInt(location.hash.slice(1), 10);
    return Number.isInteger(number) ? number - 1 : 0;
  };
  addEventListener("hashchange", () => show(addressed()));

  const dark = matchMedia("(prefers-color-scheme: dark)");
  const paint = (name) => {
    document.documentElement.dataset.theme = name;
    theme.setAttribute("aria-pressed", String(name === "dark"));
  };
  dark.addEventListener("change", () => paint(dark.matches ? "dark" : "light"));
  narrow.addEventListener("change", () => {
    layMachine();
    if (current >= 0) showState(steps[current]);
  });

  /** For printing only: each step in words, next to the diagram. */
  const spell = () => {
    printing = true;
    layMachine();
    if (current >= 0) showState(steps[current]);
    rows.forEach((row, at) => {
      const step = steps[at];
      row.querySelector(".print")?.remove();
      const state = step.state ? `inbound ${step.state.in}, outbound ${step.state.out}, ${step.state.task === "none" ? "no task" : step.state.task}, ${step.state.life}` : "state unknown";
      const timers = step.state && step.state.timers.length ? `; ${step.state.timers.map((timer) => `${timer.rule} until ${span(timer.until)}`).join(", ")}` : "";
      const calls = step.operations.flatMap((key) => operations.get(key)[runtime].calls).join(", ");
      row.append(h("div", "print", h("p", "", step.say), h("p", "dim", state + timers), calls ? h("p", "dim", `${runtime}: ${calls}`) : null, h("pre", "", step.text), step.left ? h("p", "dim", step.left) : null));
    });
  };
  const unspell = () => {
    printing = false;
    layMachine();
    if (current >= 0) showState(steps[current]);
    rows.forEach((row) => row.querySelector(".print")?.remove());
  };
  addEventListener("beforeprint", spell);
  addEventListener("afterprint", unspell);

  paint(dark.matches ? "dark" : "light");
  layMachine();
  // A recording names the runtime on which it was made.
  choose(/^Recorded by .* on (std|mio|smol)\.$/m.exec(data.about.join("\n"))?.[1] ?? "mio");
  if (steps.length === 0) {
    position.textContent = "0 / 0";
    say.textContent = "This transcript has no events.";
    [first, previous, next, last].forEach((each) => (each.disabled = true));
  }
  show(addressed());
})();
