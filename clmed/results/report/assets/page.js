"use strict";
// Sorting, through tablesort; a cell without a value has the least number there is and stays beyond all others.
const value = text => parseFloat(text);
Tablesort.extend("value", () => false, (one, other) => value(other) - value(one));
for (const table of document.querySelectorAll("table[data-sortable]")) {
  const spoken = document.getElementById(table.id + "-spoken");
  new Tablesort(table);
  table.addEventListener("afterSort", () => {
    const head = table.querySelector("[aria-sort]");
    spoken.textContent = `sorted by ${head.textContent.trim()}, ${head.getAttribute("aria-sort")}`;
  });
}

// Filtering: a row stays where it holds every word that was typed and the benchmark that was chosen.
for (const form of document.querySelectorAll(".filter")) {
  const rows = [...document.querySelectorAll(`#${form.dataset.table} tbody tr`)];
  const [words, choice] = [form.querySelector("input"), form.querySelector("select")];
  const told = form.querySelector("output");
  const filter = () => {
    const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
    let left = 0;
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      const here = !choice || !choice.value || row.dataset.of === choice.value;
      row.hidden = !(here && wanted.every(word => text.includes(word)));
      left += !row.hidden;
    }
    told.textContent = `${left} of ${rows.length} rows`;
  };
  form.addEventListener("input", filter);
  form.addEventListener("submit", event => event.preventDefault());
  filter();
}

// Values in figures: the area under the pointer or finger, or the nearest markers within REACH pixels, show their text.
const REACH = 24;
const tip = document.getElementById("tip");
for (const drawing of document.querySelectorAll(".drawing")) {
  const marks = [...drawing.querySelectorAll("[data-tip]")];
  const show = event => {
    const area = event.target.closest("path[data-tip], g[data-tip]");
    let found = area ? [area] : [], least = REACH;
    for (const mark of area ? [] : marks) {
      const box = mark.getBoundingClientRect();
      const away = Math.hypot(
        Math.max(box.left - event.clientX, 0, event.clientX - box.right),
        Math.max(box.top - event.clientY, 0, event.clientY - box.bottom));
      if (away < least) [found, least] = [[mark], away];
      else if (away === least) found.push(mark);
    }
    tip.hidden = !found.length;
    if (tip.hidden) return;
    tip.textContent = found.map(mark => mark.dataset.tip).join("\n");
    const left = Math.min(event.clientX + 12, innerWidth - tip.offsetWidth - 8);
    tip.style.left = `${Math.max(left, 8)}px`;
    tip.style.top = `${Math.max(event.clientY - tip.offsetHeight - 12, 8)}px`;
  };
  drawing.addEventListener("pointermove", show);
  drawing.addEventListener("pointerdown", show);
  drawing.addEventListener("pointerleave", event => { if (event.pointerType === "mouse") tip.hidden = true; });
}
addEventListener("scroll", () => { tip.hidden = true; }, {passive: true});
