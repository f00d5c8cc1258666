"use strict";
const at = (id) => document.getElementById(id);

// An element with attributes and children; what comes from a server becomes text only.
function made(kind, attributes = {}, ...children) {
  const found = document.createElement(kind);
  for (const [name, value] of Object.entries(attributes))
    if (value !== null && value !== undefined) found.setAttribute(name, value);
  found.append(...children);
  return found;
}

const memory = {       // a browser may refuse to remember: then only a reload loses what is unsent
  get(key) { try { return JSON.parse(localStorage.getItem(key)); } catch { return null; } },
  set(key, value) { try { localStorage.setItem(key, JSON.stringify(value)); } catch {} },
  drop(key) { try { localStorage.removeItem(key); } catch {} },
};

function say(text, warn = false) {
  at("status").textContent = text;
  at("status").classList.toggle("warn", warn);
}

const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

// A key that is meant for the page: not one typed into a field or held with others.
const isForPage = (event) => !(event.target instanceof HTMLInputElement
  || event.ctrlKey || event.metaKey || event.altKey || event.repeat);
