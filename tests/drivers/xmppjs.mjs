// Drives @xmpp/client (xmpp.js) over TLS (xmpps) or STARTTLS (xmpp). The line protocol is told in lines.py.
//
// Node reads further CAs only from the environment: start it with NODE_EXTRA_CA_CERTS naming the CA. xmpp.js takes one name
// for both the address and the certificate, as with a domain that DNS points at the relay: so it does here, by a lookup of
// our own. xmpp.js answers no XEP-0092; its software stays unknown.
import dns from "node:dns";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";
import { webcrypto } from "node:crypto";

// Debian 12's Node has it, but not yet as a global, where xmpp.js looks for it.
globalThis.crypto ??= webcrypto;

const emit = (event, fields = {}) => process.stdout.write(`${JSON.stringify({ event, ...fields })}\n`);

const { client, xml } = await import(
  pathToFileURL(createRequire(`${process.env.XMPPJS_HOME}/package.json`).resolve("@xmpp/client")).href
);

let xmpp = null;
let leaving = false;

// What a user of this library would see: its "error" events, and whatever it would print.
process.on("unhandledRejection", (error) => emit("error", { text: `rejected: ${error?.message ?? error}` }));
console.error = console.warn = (...words) => emit("error", { text: words.join(" ") });

function stanza(element) {
  const from = element.attrs.from;
  if (element.attrs.type === "error") {
    emit("error", { text: `${element.name} from ${from}: ${element.getChild("error")?.toString()}` });
  } else if (element.is("message") && element.getChildText("body")) {
    emit("message", { from, body: element.getChildText("body"), id: element.attrs.id ?? null });
  } else if (element.is("presence")) {
    emit("presence", { from, show: element.attrs.type ?? element.getChildText("show") ?? "available" });
  }
}

const commands = {
  connect({ host, port, tls, domain, jid, password }) {
    dns.lookup = (_name, options, done) => {
      done ??= options;
      options.all ? done(null, [{ address: host, family: 4 }]) : done(null, host, 4);
    };
    const service = `${tls === "direct" ? "xmpps" : "xmpp"}://${domain}:${port}`;
    const login = jid ? { username: jid.split("@")[0], password } : {};
    xmpp = client({ service, domain, ...login });
    xmpp.on("error", (error) => {
      if (error.name === "SASLError") {
        emit("auth_failed", { condition: error.condition, text: error.text ?? null });
      } else if (!leaving) {
        emit("error", { text: `${error.name}: ${error.message}` });
      }
    });
    xmpp.on("stanza", stanza);
    xmpp.on("nonza", (element) => element.is("a") && emit("a", { h: Number(element.attrs.h) }));
    xmpp.streamManagement.on("resumed", () => emit("resumed", { h: xmpp.streamManagement.inbound }));
    xmpp.on("disconnect", () => emit("closed"));
    xmpp.on("online", async (address) => {
      await xmpp.send(xml("presence"));
      emit("connected", { jid: address.toString() });
    });
    // A refusal is told by the "error" event above.
    xmpp.start().catch(() => {});
  },
  async send({ to, body }) {
    await xmpp.send(xml("message", { type: "chat", to, id: crypto.randomUUID() }, xml("body", {}, body)));
  },
  async presence({ show }) {
    await xmpp.send(xml("presence", {}, show ? xml("show", {}, show) : null));
  },
  screen() {
    emit("screen", { text: "" });
  },
  async quit() {
    leaving = true;
    await xmpp?.stop().catch(() => {});
    process.exit(0);
  },
};

emit("ready", { client: "xmpp.js" });
// In their order, each finished before the next.
for await (const line of createInterface({ input: process.stdin })) {
  const { do: what, ...fields } = JSON.parse(line);
  await commands[what](fields);
}
await commands.quit();
