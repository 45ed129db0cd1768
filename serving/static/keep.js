// What the page remembers. The key and the names of customers live in this tab alone; the last tenants in this browser.

const KEY = "context-plane.key";
const TENANTS = "context-plane.tenants";
const ENTITIES = "context-plane.entities";
const RECENT_MAX = 8;

/** The API key, or null. It is in the session's storage and in the Authorization header, and nowhere else. */
export const key = {
  get: () => read(sessionStorage, KEY, null),
  set: (value) => write(sessionStorage, KEY, value),
  forget: () => write(sessionStorage, KEY, null),
};

export const tenants = {
  list: () => read(localStorage, TENANTS, []),
  add: (name) => write(localStorage, TENANTS, newest(read(localStorage, TENANTS, []), name)),
  remove: (name) => write(localStorage, TENANTS, read(localStorage, TENANTS, []).filter((other) => other !== name)),
};

export const entities = {
  list: (tenant) => read(sessionStorage, ENTITIES, {})[tenant] ?? [],
  add(tenant, name) {
    const all = read(sessionStorage, ENTITIES, {});
    write(sessionStorage, ENTITIES, { ...all, [tenant]: newest(all[tenant] ?? [], name) });
  },
};

const newest = (names, name) => [name, ...names.filter((other) => other !== name)].slice(0, RECENT_MAX);

function read(storage, name, otherwise) {
  try {
    return JSON.parse(storage.getItem(name)) ?? otherwise;
  } catch {
    return otherwise; // storage is off, or not ours
  }
}

function write(storage, name, value) {
  try {
    if (value === null) storage.removeItem(name);
    else storage.setItem(name, JSON.stringify(value));
  } catch {
    // storage is off: nothing is remembered
  }
}
