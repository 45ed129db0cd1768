// Links into the page, a contract (docs/explorer.md):
//   #/{tenant}/{entity}?spec=…&as_of=…&event={day}/{id}      or      ?tenant=…&entity=…&spec=…&as_of=…&event=…
// Names are percent-encoded. What follows the # never leaves the browser. No link holds a key.

const NAMES = ["spec", "as_of", "event"];
const DAY = /^\d{4}-\d{2}-\d{2}$/;

/** {tenant, entity, spec, as_of, event}: strings, null where the link does not say; event is {day, id}. */
export function parse(hash, query = "") {
  const [path, inside = ""] = split(hash.startsWith("#/") ? hash.slice(2) : "", "?");
  const [tenant, entity] = path.split("/").map(decoded);
  const given = new URLSearchParams(inside);
  const outer = new URLSearchParams(query);
  if (tenant) return route(tenant, entity, given);
  return route(outer.get("tenant"), outer.get("tenant") && outer.get("entity"), outer);
}

function route(tenant, entity, given) {
  const asOf = given.get("as_of");
  return {
    tenant: tenant || null,
    entity: entity || null,
    spec: given.get("spec") || null,
    as_of: asOf && DAY.test(asOf) ? asOf : null,
    event: entity ? cited(given.get("event")) : null,
  };
}

function cited(text) {
  const [day, id] = split(text ?? "", "/");
  return id && DAY.test(day) ? { day, id } : null;
}

/** The link's part from the # on. `parse(format(route))` is the route. */
export function format({ tenant, entity, ...rest }) {
  if (!tenant) return "#/";
  const path = entity ? `${encodeURIComponent(tenant)}/${encodeURIComponent(entity)}` : encodeURIComponent(tenant);
  const event = rest.event ? `${rest.event.day}/${rest.event.id}` : null;
  const values = { spec: rest.spec, as_of: rest.as_of, event: entity ? event : null };
  const given = NAMES.filter((name) => values[name]).map((name) => `${name}=${encodeURIComponent(values[name])}`);
  return `#/${path}${given.length ? `?${given.join("&")}` : ""}`;
}

function split(text, mark) {
  const at = text.indexOf(mark);
  return at < 0 ? [text] : [text.slice(0, at), text.slice(at + mark.length)];
}

function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return "";
  }
}
