// A service that uses wxkeeper: it always has the access_token, calls WeChat with it, and has codes resolved.
//
//     npm ci
//     node main.mjs --appid wx-demo-stable --api http://127.0.0.1:…    (beside `wxkeeper demo`, which prints the URL of its WeChat)
//
// Each line of standard input is a command: `OPENID CODE_TICKET` resolves a code, `call` calls WeChat, `call 20` twenty times at
// once.

import { createInterface } from "node:readline";
import { setTimeout as pause } from "node:timers/promises";
import { parseArgs } from "node:util";
import { Credential, Refusal, connect, resolve } from "./wxkeeper.mjs";

const { values: flags } = parseArgs({
  options: {
    nats: { type: "string", default: process.env.NATS_URL || "nats://127.0.0.1:4222" },
    appid: { type: "string", default: process.env.WECHAT_APPID },
    prefix: { type: "string", default: "wechat" }, // WXKEEPER_SUBJECT_PREFIX of the workers
    api: { type: "string", default: "https://api.weixin.qq.com" },
    patience: { type: "string", default: "10" }, // seconds that a customer waits
    look: { type: "string", default: "10" }, // seconds between two looks at the bucket, beside the messages of changes
  },
});
if (!flags.appid) {
  console.error("which account? --appid wx…");
  process.exit(2);
}

const DEAD = new Set([40001, 42001, 40014]); // WeChat's words for a token that is not good any more

// A user of its own, who may do no more than this program does: wxkeeper permissions direct resolver --appid …
const { NATS_USER: user, NATS_PASSWORD: pass, NATS_INBOX_PREFIX: inboxPrefix } = process.env;
console.error(`connecting to ${flags.nats}`); // for as long as it takes
const nc = await connect({ servers: flags.nats.split(","), name: "example", user, pass, inboxPrefix });
const token = new Credential(nc, flags.appid, "access_token", { prefix: flags.prefix, lookEvery: 1_000 * flags.look });
token.on("change", (r) => {
  // Six characters tell tokens apart. The whole is a secret, and stands in no log.
  console.log(`access_token ${r.value.slice(0, 6)}… generation ${r.generation}, good until ${r.expiresAt.toISOString()}`);
});
let trouble = "";
token.on("trouble", (err) => { // each second while NATS is away: say it once
  const said = trouble;
  trouble = err.message.replace(/_INBOX[\w.]+/g, "_INBOX…"); // each request has an inbox of its own
  if (trouble !== said) console.error(`the bucket cannot be read: ${trouble}`);
});

for await (const line of createInterface({ input: process.stdin })) {
  const [word, argument] = line.trim().split(/\s+/);
  try {
    if (word === "call") await Promise.all(Array.from({ length: argument ?? 1 }, callWeChat));
    else console.log(await redeem(word, argument));
  } catch (err) {
    console.log(`failed: ${err.message} ${err.cause?.message ?? ""}`.trimEnd());
  }
}
token.close();
await nc.close();

/** Calls WeChat with the token; a token that it refuses is reported, and the call repeated once with the new one. */
async function callWeChat() {
  for (let repeated = false; ; repeated = true) {
    const used = await token.wait();
    const url = new URL("/cgi-bin/get_api_domain_ip", flags.api);
    url.searchParams.set("access_token", used.value); // so the URL is a secret too
    const reply = await (await fetch(url, { signal: AbortSignal.timeout(5_000) })).json();
    if (!DEAD.has(reply.errcode) || repeated) {
      console.log(`called WeChat with generation ${used.generation}: errcode ${reply.errcode ?? 0}`);
      return;
    }
    const { reason, generation } = await token.report(used);
    console.log(`WeChat refuses generation ${used.generation}, reported: ${reason}, the current one is generation ${generation}`);
  }
}

/** Has a code resolved for a customer who waits. */
async function redeem(openid, code_ticket) {
  const end = Date.now() + 1_000 * flags.patience;
  for (let wait = 100; ; wait *= 2) {
    try {
      const answer = await resolve(nc, { appid: flags.appid, openid, code_ticket }, { prefix: flags.prefix, timeout: end - Date.now() });
      return `code ${answer.code}`;
    } catch (err) {
      if (!(err instanceof Refusal)) return `no answer: the customer is asked to come back (${err.message})`;
      const { action, words } = reaction(err);
      const later = Math.max(wait * (0.5 + Math.random()), err.retryAfterMs); // jitter: many are refused at once
      if (action !== "again") return `${err.symbol}: ${words}`;
      if (Date.now() + later >= end) return `${err.symbol}: ${words}, but not so soon: the customer is asked to come back`;
      console.log(`${err.symbol}: ${words}`);
      await pause(later);
    }
  }
}

/**
 * What this service does about a refusal. The message of the error is for its own people, never for a customer.
 *
 * @param {Refusal} refusal
 */
function reaction({ symbol, code, errcode, rid, message }) {
  switch (symbol) {
    case "rejected": // errcode 40097: no such code_ticket, or another customer's
      return { action: "customer", words: `this code is not good (errcode ${errcode}, rid ${rid})` };
    case "invalid_request":
    case "unknown_kind":
      return { action: "fix", words: `a fault of this program: ${message}` };
    case "unknown_account":
    case "not_configured":
      return { action: "operator", words: `the workers must be configured: ${message}` };
    case "overloaded":
    case "shutting_down":
      return { action: "again", words: "another worker may take it, asked again" };
    case "upstream":
    case "upstream_timeout":
      return { action: "again", words: "WeChat has trouble, asked again" };
    case "throttled":
    case "quota_exhausted":
      return { action: "again", words: "asked too often, asked again when it may be" };
    case "no_credential":
      return { action: "again", words: "the workers have no token now, asked again; `wxkeeper status` says why" };
    default: // of a later version: its code says enough
      return { action: code === 429 || code >= 500 ? "again" : "fix", words: `unknown here (${code}): ${message}` };
  }
}
