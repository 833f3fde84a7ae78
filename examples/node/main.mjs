// The example in JavaScript: a service that uses wxkeeper. It always holds the access_token, calls WeChat with
// it, and resolves codes. examples/go is the same program in Go.
//
// Run it beside `wxkeeper demo`, which prints the URL of its simulated WeChat:
//
//     npm ci
//     node main.mjs --appid wx-demo-stable --api http://127.0.0.1:…
//
// Each line of standard input is a command: `OPENID CODE_TICKET` resolves a code, `call` calls WeChat, `call
// 20` calls it twenty times at once.

import { createInterface } from "node:readline";
import { setTimeout as pause } from "node:timers/promises";
import { parseArgs } from "node:util";
import { Credential, Refusal, connect, resolve } from "./wxkeeper.mjs";

const { values: flags } = parseArgs({
  options: {
    nats: { type: "string", default: process.env.NATS_URL || "nats://127.0.0.1:4222" }, // or a comma-separated list
    appid: { type: "string", default: process.env.WECHAT_APPID },
    prefix: { type: "string", default: "wechat" }, // WXKEEPER_SUBJECT_PREFIX of the workers
    api: { type: "string", default: "https://api.weixin.qq.com" },
    patience: { type: "string", default: "10" }, // seconds that a customer waits
    "read-every": { type: "string", default: "30" }, // seconds between two reads without a hint
  },
});
if (!flags.appid) {
  console.error("name the account: --appid wx…");
  process.exit(2);
}

/**
 * Prints one line. Texts of the workers and of WeChat are in it: characters that are not visible are escaped, because
 * they could move the cursor of a terminal, or forge a line.
 */
function show(line, print = console.log) {
  print(line.replace(/[\p{C}\p{Zl}\p{Zp}]/gu, (c) => `\\u{${c.codePointAt(0).toString(16)}}`));
}

const DEAD = new Set([40001, 42001, 40014]); // the errcodes by which WeChat refuses a token

// Use a NATS user that has only the permissions of this program: wxkeeper permissions requester --appid …
// For the embedded server of a worker: eval "$(wxkeeper nats-env)"
const { NATS_USER: user, NATS_PASSWORD: pass, NATS_TOKEN: natsToken, NATS_INBOX_PREFIX: inboxPrefix } = process.env;
console.error(`connecting to ${flags.nats}`); // until a server is up
const nc = await connect({ servers: flags.nats.split(","), name: "example", user, pass, token: natsToken, inboxPrefix });
const readEvery = 1_000 * flags["read-every"];
const token = new Credential(nc, flags.appid, "access_token", { prefix: flags.prefix, readEvery });
token.on("change", (r) => {
  // The value is a secret. Six characters are enough to distinguish tokens.
  const until = r.expiresAt.toISOString();
  show(`access_token ${r.value.slice(0, 6)}… generation ${r.generation}, valid until ${until}`);
});
let trouble = ""; // the last one: while NATS is down the same error comes each second
token.on("trouble", (err) => {
  const last = trouble;
  trouble = err.message.replace(/_INBOX[\w.]+/g, "_INBOX…"); // each request has another inbox
  if (trouble !== last) show(`cannot read the access_token: ${trouble}`, console.error);
});

for await (const line of createInterface({ input: process.stdin })) {
  const [word, argument] = line.trim().split(/\s+/);
  try {
    if (word === "call") await Promise.all(Array.from({ length: argument ?? 1 }, callWeChat));
    else show(await redeem(word, argument));
  } catch (err) {
    show(`failed: ${err.message} ${err.cause?.message ?? ""}`.trimEnd());
  }
}
token.close();
await nc.close();

/**
 * Calls WeChat; the interface is an example. If WeChat refuses the token, this reports it and repeats the call with the
 * new token: a few times, because another system may kill a new token at once.
 */
async function callWeChat() {
  for (let tries = 1; ; tries++) {
    const used = await token.wait();
    const sentAt = new Date();
    const url = new URL("/cgi-bin/get_api_domain_ip", flags.api);
    url.searchParams.set("access_token", used.value); // now the URL is a secret, too
    const reply = await (await fetch(url, { signal: AbortSignal.timeout(5_000) })).json();
    if (!DEAD.has(reply.errcode) || tries === 5) {
      show(`called WeChat with generation ${used.generation}: errcode ${reply.errcode ?? 0}`);
      return;
    }
    const { reason, generation } = await token.report(used, sentAt);
    show(`WeChat refused generation ${used.generation}; reported: ${reason}, now generation ${generation}`);
  }
}

/** Resolves a code for a customer who waits. */
async function redeem(openid, code_ticket) {
  const end = Date.now() + 1_000 * flags.patience;
  for (let wait = 100; ; wait *= 2) {
    try {
      const scan = { appid: flags.appid, openid, code_ticket };
      const answer = await resolve(nc, scan, { prefix: flags.prefix, timeout: end - Date.now() });
      return `code ${answer.code}`;
    } catch (err) {
      if (!(err instanceof Refusal)) return `no answer; the customer must try again later (${err.message})`;
      const { repeat, words } = reaction(err);
      // Jitter: a cause often refuses many requests at once, which must not come back at once.
      const later = Math.max(wait * (0.5 + Math.random()), err.retryAfterMs);
      if (!repeat) return `${err.symbol}: ${words}`;
      if (Date.now() + later >= end) return `${err.symbol}: ${words}; the customer must try again later`;
      show(`${err.symbol}: ${words}; the request is repeated`);
      await pause(later);
    }
  }
}

/**
 * What this service does after a refusal: whether it repeats the request, and what it prints. The message of
 * the error is for the operators of the service, never for a customer.
 *
 * @param {Refusal} refusal
 */
function reaction({ symbol, code, errcode, rid, message }) {
  switch (symbol) {
    case "rejected": // errcode 40097: no such code_ticket, or the code_ticket of another customer
      return { repeat: false, words: `this code is not valid (errcode ${errcode}, rid ${rid})` };
    case "invalid_request":
    case "unknown_kind":
      return { repeat: false, words: `a bug of this program: ${message}` };
    case "unknown_account":
    case "not_configured":
      return { repeat: false, words: `configure the workers: ${message}` };
    case "overloaded":
    case "shutting_down":
      return { repeat: true, words: "another worker may accept it" };
    case "upstream":
    case "upstream_timeout":
      return { repeat: true, words: "WeChat has trouble" };
    case "throttled":
    case "quota_exhausted":
      return { repeat: true, words: "too many requests" };
    case "no_credential":
      return { repeat: true, words: "the workers have no token now; `wxkeeper status` shows the reason" };
    default: // an error of a later version: its code is enough for a decision
      return { repeat: code === 429 || code >= 500, words: `unknown error (${code}): ${message}` };
  }
}
