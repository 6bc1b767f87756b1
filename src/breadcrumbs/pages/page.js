"use strict";
(() => {
  const colours = JSON.parse(document.getElementById("colours").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const tip = document.getElementById("tip");
  const charts = [];

  // Colours are names in the specifications: "@ink" is a dark or a light one.
  const coloured = (text, isDark) =>
    text.replace(/"@(\w+)"/g, (all, name) => (name in colours ? `"${colours[name][+isDark]}"` : all));

  function show(handler, event, item, value) {
    if (value == null || value === "") { tip.hidden = true; return; }
    const table = document.createElement("table");
    for (const [key, content] of typeof value === "object" ? Object.entries(value) : [["", value]]) {
      const row = table.insertRow();
      row.insertCell().textContent = key;
      row.insertCell().textContent = content;
    }
    tip.replaceChildren(table);
    tip.hidden = false;
    const box = tip.getBoundingClientRect();
    const x = Math.min(event.clientX + 14, innerWidth - box.width - 8);
    const y = event.clientY + 16 + box.height > innerHeight ? event.clientY - box.height - 10 : event.clientY + 16;
    tip.style.left = `${Math.max(8, x)}px`;
    tip.style.top = `${Math.max(8, y)}px`;
  }

  // Expressions are interpreted (ast), so that the page needs no eval.
  async function draw(chart, isDark) {
    chart.view?.finalize();
    chart.view = null;
    const spec = JSON.parse(coloured(chart.text, isDark));
    const options = { mode: "vega", ast: true, renderer: "svg", actions: false, defaultStyle: false, tooltip: show };
    const { view } = await vegaEmbed(chart.box, spec, options);
    chart.view = view;
    if (chart.selects.length) {
      for (const select of chart.selects) view.signal(select.dataset.signal, select.value);
      await view.runAsync();
    }
  }

  async function begin() {
    for (const figure of document.querySelectorAll("figure")) {
      const chart = {
        box: figure.querySelector(".chart"),
        text: figure.querySelector(".spec").textContent,
        selects: [...figure.querySelectorAll("select")],
        view: null,
      };
      for (const select of chart.selects) {
        select.addEventListener("change", () => chart.view?.signal(select.dataset.signal, select.value).run());
      }
      charts.push(chart);
    }
    await Promise.all(charts.map((chart) => draw(chart, dark.matches)));
    document.documentElement.dataset.drawn = String(charts.length);
  }

  const redraw = (isDark) => charts.forEach((chart) => draw(chart, isDark));
  dark.addEventListener("change", () => redraw(dark.matches));
  addEventListener("beforeprint", () => redraw(false));
  addEventListener("afterprint", () => redraw(dark.matches));
  let width = innerWidth;
  addEventListener("resize", () => {
    if (innerWidth !== width) charts.forEach((chart) => chart.view?.resize().run());
    width = innerWidth;
  });
  addEventListener("scroll", () => { tip.hidden = true; }, { passive: true });
  addEventListener("keydown", (event) => { if (event.key === "Escape") tip.hidden = true; });
  begin();

  // A page that breadcrumbs report --serve keeps: it asks for another when the rows have changed.
  if (!("live" in document.body.dataset)) return;
  const state = document.querySelector(".live");
  let tag = document.body.dataset.live;
  setInterval(async () => {
    try {
      const answer = await fetch("state", { cache: "no-store" });
      const now = await answer.text();
      state.textContent = "live";
      state.classList.remove("lost");
      if (now === tag) return;
      tag = now;
      const fresh = new DOMParser().parseFromString(await (await fetch("")).text(), "text/html");
      const open = new Set([...document.querySelectorAll("figure:has(details[open])")].map((f) => f.id));
      const picked = new Map([...document.querySelectorAll("figure select")].map(
        (s) => [`${s.closest("figure").id} ${s.dataset.signal}`, s.value]));
      charts.forEach((chart) => chart.view?.finalize());
      charts.length = 0;
      document.querySelector("header").replaceWith(fresh.querySelector("header"));
      document.querySelector("main").replaceWith(fresh.querySelector("main"));
      for (const id of open) document.getElementById(id)?.querySelector("details")?.setAttribute("open", "");
      for (const select of document.querySelectorAll("figure select")) {
        const value = picked.get(`${select.closest("figure").id} ${select.dataset.signal}`);
        if ([...select.options].some((option) => option.value === value)) select.value = value;
      }
      await begin();
    } catch {
      const lost = document.querySelector(".live");
      lost.textContent = "no longer live";
      lost.classList.add("lost");
    }
  }, 2000);
})();
