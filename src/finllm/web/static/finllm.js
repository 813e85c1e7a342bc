// Live updates and keys. Every page works without this: it only saves a reload and a reach for the mouse.
"use strict";
(() => {
  const body = document.body;

  // The server says that what this page shows has changed; the page is read again and its parts are put in place, but
  // for one that somebody is writing in. So what is seen is always what a reload would show.
  const written = (part) => part.contains(document.activeElement) && document.activeElement.matches("input,textarea,select")
    || [...part.querySelectorAll("input:not([type=hidden]),textarea")].some((one) => one.value !== one.defaultValue);
  let reading = false, again = false;
  const refresh = async () => {
    if (reading) { again = true; return; }
    reading = true;
    try {
      const answer = await fetch(location.href, { credentials: "same-origin", redirect: "follow" });
      if (answer.redirected && new URL(answer.url).pathname !== location.pathname) { location.assign(answer.url); return; }
      if (!answer.ok) return;
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      for (const part of document.querySelectorAll("[data-part]")) {
        const fresh = page.querySelector(`[data-part="${part.dataset.part}"]`);
        if (!fresh || fresh.outerHTML === part.outerHTML) continue;
        if (written(part)) { body.dataset.stale = "yes"; continue; }
        const focused = document.activeElement && part.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
        part.replaceWith(document.importNode(fresh, true));
        if (focused) document.querySelector(`[data-part] a[href="${CSS.escape(focused)}"]`)?.focus();
      }
      if (page.body.dataset.state) body.dataset.state = page.body.dataset.state;
      body.dataset.read = String(Number(body.dataset.read || 0) + 1);
    } finally {
      reading = false;
      if (again) { again = false; refresh(); }
    }
  };
  if (body.dataset.live && window.EventSource) {
    const source = new EventSource(`${body.dataset.live}?state=${encodeURIComponent(body.dataset.state || "")}`);
    source.addEventListener("changed", refresh);
    source.addEventListener("gone", () => { source.close(); location.reload(); });
  }

  // A claim is kept for as long as its page is open.
  const beat = document.querySelector("form[data-heartbeat]");
  if (beat) setInterval(() => fetch(beat.action, { method: "POST", credentials: "same-origin", body: new URLSearchParams(new FormData(beat)) }), 60000);

  const rows = () => [...document.querySelectorAll("[data-row]")];
  const help = document.getElementById("keys");
  let chord = "";
  const move = (by) => {
    const all = rows();
    if (!all.length) return;
    const at = all.findIndex((one) => one.classList.contains("at"));
    const next = all[Math.min(all.length - 1, Math.max(0, at < 0 ? (by > 0 ? 0 : all.length - 1) : at + by))];
    all.forEach((one) => one.classList.toggle("at", one === next));
    (next.matches("a") ? next : next.querySelector("a"))?.focus();
    next.scrollIntoView({ block: "nearest" });
  };
  const to = { q: "/queue", r: "/runs", s: "/sessions", c: "/record" };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const typing = event.target.matches("input:not([type=checkbox]),textarea,select");
    if (event.key === "Escape") { help?.close(); if (typing) event.target.blur(); return; }
    if (typing) return;
    if (chord === "g") { chord = ""; if (to[event.key]) location.assign(to[event.key]); return; }
    switch (event.key) {
      case "j": move(1); break;
      case "k": move(-1); break;
      case "g": chord = "g"; setTimeout(() => { chord = ""; }, 1200); break;
      case "?": help?.open ? help.close() : help?.showModal(); break;
      default: {
        const field = document.querySelector(`[data-key="${CSS.escape(event.key)}"]`);
        if (!field) return;
        field.closest("details")?.setAttribute("open", "");
        field.focus();
        if (field.matches("a")) field.click();
      }
    }
    event.preventDefault();
  });
})();
