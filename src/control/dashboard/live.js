// Keeps a page up to date: a stream says that something has happened, the page is fetched again, and its parts are put
// in the places of the old ones. Without this script every page works by itself.
"use strict";

(() => {
  const body = document.body;
  const search = document.getElementById("search");
  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest("input, select, textarea");
    if (event.key !== "/" || typing || event.ctrlKey || event.metaKey || event.altKey || !search) return;
    event.preventDefault();
    search.focus();
    search.select();
  });

  const address = body.dataset.live;
  if (!address || !window.EventSource) return;
  const state = document.getElementById("live-state");
  const pause = document.getElementById("live-pause");
  state.hidden = pause.hidden = false;
  let last = body.dataset.after;
  let stream = null;
  let paused = false;
  let due = null;
  let fetching = false;
  let again = false;

  const say = (text) => { if (state.textContent !== text) state.textContent = text; };

  // The parts of a page have ids; those that somebody is at work in are left alone.
  const put = (html) => {
    const fresh = new DOMParser().parseFromString(html, "text/html");
    for (const part of document.querySelectorAll("[data-part]")) {
      const next = part.id && fresh.getElementById(part.id);
      if (!next || next.outerHTML === part.outerHTML) continue;
      if (part.contains(document.activeElement) || part.querySelector("input:checked, details[open]")) continue;
      part.replaceWith(document.adoptNode(next));
    }
  };

  const refresh = async () => {
    due = null;
    if (paused || document.hidden) return;
    if (fetching) { again = true; return; }
    fetching = true;
    try {
      const answer = await fetch(location.href, { headers: { "Batchd-Part": "main" }, credentials: "same-origin" });
      if (answer.status === 401) { say("signed out"); stop(); return; }
      if (answer.ok) put(await answer.text());
    } catch { /* The stream says whether the daemon is away. */ } finally {
      fetching = false;
      if (again) { again = false; soon(1000); }
    }
  };

  const soon = (wait) => { if (due === null) due = setTimeout(refresh, wait); };

  const stop = () => { if (stream) stream.close(); stream = null; };

  const start = () => {
    stop();
    stream = new EventSource(`${address}?after=${encodeURIComponent(last)}`);
    stream.onopen = () => say("live");
    stream.onerror = () => {
      say("reconnecting …");
      // A browser does not try again by itself after an answer that is no stream.
      if (stream && stream.readyState === EventSource.CLOSED) setTimeout(() => { if (!paused) { start(); soon(0); } }, 15000);
    };
    const news = (event) => { if (event.lastEventId) last = event.lastEventId; soon(400); };
    for (const type of [...body.dataset.types.split(" "), "reset"]) stream.addEventListener(type, news);
  };

  pause.addEventListener("click", () => {
    paused = !paused;
    pause.textContent = paused ? "Go on" : "Pause";
    if (paused) { stop(); say("paused"); } else { start(); soon(0); }
  });
  document.addEventListener("visibilitychange", () => { if (!document.hidden) soon(0); });
  // A page that was left may be kept for the way back. Its stream would keep one of the few connections that a browser
  // opens to one host.
  window.addEventListener("pagehide", stop);
  window.addEventListener("pageshow", (event) => { if (event.persisted && !paused) { start(); soon(0); } });
  // Counts and times change without an event.
  setInterval(() => soon(0), 30000);
  start();
})();
