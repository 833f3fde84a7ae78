// What a service in JavaScript needs from wxkeeper: a credential that is always current, and requests to the
// workers. It implements the contract of docs/consumers.md. It is an example: copy the file into your service.

import { createHash } from "node:crypto";
import { EventEmitter, once } from "node:events";
import { setTimeout as pause } from "node:timers/promises";
import { connect as natsConnect, createInbox } from "@nats-io/transport-node";

const READ_AGAIN = 1_000; //    ms after a read that failed
const READ_TIMEOUT = 2_000; //  ms for one read
const SETTLE_FIRST = 1_000; //  ms after the first read on a connection; doubles with each further one
const SETTLE_READS = 5; //      such reads, because a worker may be behind after a server was lost
const HINT_PAUSE = 50; //       ms between a hint and the second read for it; doubles with each further one
const HINT_TRIES = 6; //        reads for one hint that do not show it
const HINT_EVERY = 1_000; //    ms between two reads that hints cause, on average
const HINTS_AT_ONCE = 10; //    such reads without a pause
const ATTEMPT = 5_000; //       ms for one answer; a worker replies within 4 s
const DEADLINE = 10_000; //     ms for a request with all its attempts
const AHEAD = 3_600_000; //     ms by which obtained_at may be ahead of this machine's clock
const RETRY_AFTER = 604_800_000; // ms: no worker asks for a longer wait, and a timer has no more than 2^31 - 1
const LIFE = 31 * 86_400_000; // ms: the longest life of a credential

/**
 * Connects with the options that a service needs. By default nats.js fails if no server is up at the start, and
 * closes the connection permanently after ten attempts to reconnect, or after the server has refused its user
 * twice.
 *
 * @param {import("@nats-io/transport-node").ConnectionOptions} options servers, authenticator, inboxPrefix, …
 */
export function connect(options) {
  return natsConnect({
    maxReconnectAttempts: -1, ignoreAuthErrorAbort: true, waitOnFirstConnect: true,
    reconnectTimeWait: 500, // ms
    timeout: 5_000, //         ms for one attempt; it takes all of them if the server closes the connection halfway
    pingInterval: 10_000, //   ms; a network that silently drops packets is detected after three of them
    ...options,
  });
}

/**
 * A credential.
 *
 * @typedef {object} Record
 * @property {string} value      the token or ticket: a secret
 * @property {number} generation grows with each new value
 * @property {number} revision   of the record in the bucket
 * @property {Date} obtainedAt   when a worker asked WeChat for the value
 * @property {Date} expiresAt    when the value expires
 */

/**
 * A credential that is always current. Events: "change" with the new {@link Record}; "trouble" with an Error,
 * each time that the credential cannot be read.
 *
 * It requests the credential from the workers: at the start, after each reconnection, at an interval, and after a
 * message on wechat.published.APPID.KIND, on which the bucket republishes each change. Such a message is only a
 * hint, and never a value: every user that may publish there, or direct a reply there, can send one.
 */
export class Credential extends EventEmitter {
  #nc;
  #appid;
  #kind;
  #prefix;
  #readEvery;
  #subscription;
  /** @type {Record | undefined} */
  #held;
  #timer;
  #closed = false;
  #reading = false; // a read is in progress
  #again = false; //   another read is wanted after it
  #hinted = false; //  the timer was set by a hint
  #wanted = 0; //      the revision of a hint that no read has shown yet
  #settled = 0; //     reads since the last connection, at most SETTLE_READS
  #tries = 0; //       reads since the last hint that did not show it
  #last = 0; //        the revision of the last read
  #paid = 0; //        limits the reads that hints cause
  #preferred = 0; //   the revision that the workers call the current one
  #reports = new Map(); // value → sentAt and reply of the report in progress

  /**
   * @param {import("@nats-io/transport-node").NatsConnection} nc
   * @param {string} appid
   * @param {string} kind access_token, jsapi_ticket or wx_card_ticket
   * @param {object} options
   * @param {string} options.prefix    WXKEEPER_SUBJECT_PREFIX of the workers
   * @param {number} options.readEvery ms between two reads without a hint, which find changes whose hint was lost
   */
  constructor(nc, appid, kind = "access_token", { prefix = "wechat", readEvery = 30_000 } = {}) {
    super();
    this.setMaxListeners(0); // each caller of wait is a listener
    this.#nc = nc;
    this.#appid = appid;
    this.#kind = kind;
    this.#prefix = prefix;
    this.#readEvery = readEvery;
    this.#subscription = nc.subscribe(`${prefix}.published.${appid}.${kind}`, {
      callback: (err, msg) => (err ? this.emit("trouble", err) : this.#hint(msg.headers)),
    });
    this.#readAfterReconnections();
    this.#readIn(0); // after the caller has added its listeners
  }

  /** The current record. Throws if there is none yet, or if the last one has expired. */
  get record() {
    if (!this.#held) throw new Error(`no ${this.#kind} of ${this.#appid} yet`);
    if (!valid(this.#held)) throw new Error(`the ${this.#kind} of ${this.#appid} has expired`);
    return this.#held;
  }

  /** The current value. Read it for each use. Throws as record does. */
  get value() {
    return this.record.value;
  }

  /**
   * Waits for a valid record, with another value than except.
   *
   * @param {{except?: string, signal?: AbortSignal}} options
   */
  async wait({ except, signal = AbortSignal.timeout(DEADLINE) } = {}) {
    try {
      while (!valid(this.#held) || this.#held.value === except) await once(this, "change", { signal });
    } catch (cause) {
      throw new Error(`no ${except ? "other" : "valid"} ${this.#kind} of ${this.#appid} in time`, { cause });
    }
    return this.#held;
  }

  /**
   * Reports to the workers that WeChat refused this record (errcode 40001, 42001 or 40014), and waits until
   * this object holds the current record. Reports of the same value are coalesced. The workers ask WeChat
   * before they renew anything.
   *
   * @param {Record} refused
   * @param {Date} [sentAt] a time before the refused call was sent: what WeChat said before does not count against it
   * @returns {Promise<{reason: string, generation: number, refreshed: boolean}>} the reply of wechat.credential.refresh
   */
  async report(refused, sentAt) {
    const held = this.#held;
    if (valid(held) && held.value !== refused.value) { // the new one has arrived before WeChat's answer
      return { reason: "not_current", generation: held.generation, refreshed: false };
    }
    const joined = this.#reports.get(refused.value);
    if (joined) {
      const reply = await joined.reply;
      // The token may have died after the reported call: WeChat's word counts only for calls that were sent before it.
      return reply.reason === "alive" && sentAt > joined.sentAt ? this.report(refused, sentAt) : reply;
    }
    const reply = this.#report(refused.value, sentAt).finally(() => this.#reports.delete(refused.value));
    this.#reports.set(refused.value, { sentAt, reply });
    return reply;
  }

  /** Stops receiving changes. */
  close() {
    this.#closed = true;
    clearTimeout(this.#timer);
    this.#subscription.unsubscribe();
  }

  async #report(refused, sentAt) {
    const value_sha256 = createHash("sha256").update(refused).digest("hex");
    const body = { appid: this.#appid, kind: this.#kind, value_sha256, sent_at: sentAt?.toISOString() };
    const reply = await request(this.#nc, "credential.refresh", body, { prefix: this.#prefix });
    if (reply.appid !== this.#appid || reply.kind !== this.#kind) throw new Error("the reply is about another key");
    if (reply.reason === "refreshed" || reply.reason === "not_current") {
      // The refused record may have been forged, with a generation that hides the current one.
      if (reply.reason === "not_current" && this.#held?.value === refused) this.#preferred = reply.revision;
      this.#read(); // the hint may have been lost
      await this.wait({ except: refused });
    }
    return reply;
  }

  /** Reads again soon: the record may have changed. A flood of hints causes few reads. */
  #hint(headers) {
    const removed = headers?.has("KV-Operation") || headers?.has("Nats-Marker-Reason"); // a worker may still hold it
    if (!removed) this.#wanted = Math.max(this.#wanted, Number(headers?.get("Nats-Sequence")) || 0);
    this.#tries = 0;
    if (this.#hinted) return;
    this.#hinted = true;
    const now = Date.now();
    this.#paid = Math.max(this.#paid, now) + HINT_EVERY;
    this.#readIn(Math.max(0, this.#paid - now - HINTS_AT_ONCE * HINT_EVERY));
  }

  /** Reads the credential now, and again after the interval. */
  async #read() {
    this.#hinted = false;
    this.#again = this.#reading; // one read at a time
    if (this.#reading || this.#closed) return;
    this.#reading = true;
    let next = this.#readEvery;
    try {
      const record = await this.#get();
      if (record) this.#adopt(record);
      if (this.#settled < SETTLE_READS) next = Math.min(next, SETTLE_FIRST * 2 ** this.#settled++);
      // The worker may not have received yet what the hint is about. A revision that is higher, and that was there
      // before, may be of the bucket before it was recreated. And the hint may be forged.
      const revision = record?.revision ?? 0;
      const shown = revision === this.#wanted || (revision > this.#wanted && revision !== this.#last);
      this.#last = revision;
      if (this.#wanted && !shown && this.#tries < HINT_TRIES) next = HINT_PAUSE * 2 ** this.#tries++;
      else this.#wanted = this.#tries = 0;
    } catch (err) { // NATS is down, or no worker runs: a record that is still valid is kept
      if (this.#closed) return;
      this.emit("trouble", err);
      next = READ_AGAIN;
    } finally {
      this.#reading = false;
    }
    if (!this.#hinted) this.#readIn(this.#again ? 0 : Math.min(next, this.#readEvery));
  }

  /** Requests the credential from a worker. Returns undefined if there is none now. */
  async #get() {
    const body = { appid: this.#appid, kind: this.#kind };
    try {
      const reply = await request(this.#nc, "credential.get", body, { prefix: this.#prefix, timeout: READ_TIMEOUT });
      return toRecord(reply, this.#appid, this.#kind);
    } catch (err) {
      if (err instanceof Refusal && ["no_credential", "not_configured"].includes(err.symbol)) return undefined;
      throw err;
    }
  }

  /** Adopts a record, unless it is older than the record that this object holds. */
  #adopt(record) {
    const held = this.#held;
    const preferred = this.#preferred > 0 && record.revision === this.#preferred;
    if (!valid(record) || (valid(held) && !preferred && !newer(record, held)) || same(record, held)) return;
    this.#held = record;
    this.#preferred = 0;
    this.emit("change", record);
  }

  #readIn(ms) {
    clearTimeout(this.#timer);
    if (!this.#closed) this.#timer = setTimeout(() => this.#read(), ms);
  }

  async #readAfterReconnections() {
    for await (const status of this.#nc.status()) {
      if (this.#closed) return;
      if (status.type !== "reconnect") continue;
      this.#settled = 0;
      this.#read(); // hints of the time without a connection do not arrive
    }
  }
}

/**
 * Checks that a reply is a record of this account and kind, which no other responder can have put in its place.
 *
 * @returns {Record}
 */
function toRecord(json, appid, kind) {
  if (json?.appid !== appid || json.kind !== kind) throw new Error("the reply is the record of another key");
  const { value, generation, revision = 0 } = json;
  const obtainedAt = new Date(json.obtained_at);
  const expiresAt = new Date(json.expires_at);
  const life = expiresAt - obtainedAt;
  const usable = typeof value === "string" && /^[!-~]{1,2048}$/.test(value) && life > 0 && life <= LIFE &&
    Number.isSafeInteger(generation) && generation > 0; // a safe integer is at most 2^53-1
  if (!usable) throw new Error("the reply is not a valid record");
  if (obtainedAt > Date.now() + AHEAD) throw new Error("the record was obtained in the future: check the clock");
  return { value, generation, revision, obtainedAt, expiresAt };
}

/**
 * Whether a record replaces the held one, which is valid. A lower generation that was obtained earlier comes from a
 * worker that lags behind or from a backup; one that was obtained later means that the workers have lost the count,
 * or that the held record was forged.
 *
 * @param {Record} record @param {Record} held
 */
function newer(record, held) {
  if (record.generation > held.generation || record.obtainedAt > held.obtainedAt) return true;
  if (record.generation < held.generation) return false;
  return record.revision >= held.revision || record.expiresAt >= held.expiresAt; // it may have a longer life now
}

/** Whether two records are equal. @param {Record} a @param {Record | undefined} b */
function same(a, b) {
  return b !== undefined && a.value === b.value && a.generation === b.generation && a.revision === b.revision &&
    a.expiresAt.getTime() === b.expiresAt.getTime();
}

/** Compares with the clock of this machine, which must be right. @param {Record | undefined} record */
function valid(record) {
  return record !== undefined && Date.now() < record.expiresAt.getTime();
}

/** The error of a request that a worker refused. Its fields: messages/schemas/error.json. */
export class Refusal extends Error {
  /** @param {number} code from the header @param {object} body */
  constructor(code, body) {
    super(`${body.error} (${code}): ${body.message}`);
    this.name = "Refusal";
    this.code = code; //                             400 to 504, as in HTTP
    this.symbol = body.error; //                     decide on this
    this.errcode = body.errcode; //                  from WeChat, if it has answered
    this.errmsg = body.errmsg;
    this.rid = body.rid;
    const wait = Number(body.retry_after_ms) || 0;
    this.retryAfterMs = Math.min(Math.max(0, wait), RETRY_AFTER); // before a repetition; 0: not known
  }
}

/**
 * Resolves a code_ticket. Returns WeChat's own answer, in which code is a string.
 *
 * @param {import("@nats-io/transport-node").NatsConnection} nc
 * @param {{appid: string, openid: string, code_ticket: string}} scan
 * @param {{prefix?: string, timeout?: number}} options
 * @returns {Promise<{code: string}>}
 * @throws {Refusal} if a worker refused it
 */
export function resolve(nc, scan, options) {
  return request(nc, "code.resolve", scan, options);
}

/**
 * Sends a request to the workers. It repeats the request until the timeout if no worker listens (the only one
 * restarts) or none replies (the request was lost with a connection).
 *
 * @throws {Refusal} if a worker refused it, without a repetition
 */
async function request(nc, subject, body, { prefix = "wechat", timeout = DEADLINE } = {}) {
  const end = Date.now() + timeout;
  for (let wait = 50; ; wait = Math.min(2 * wait, 1_000)) {
    try {
      const attempt = Math.max(1, Math.min(ATTEMPT, end - Date.now()));
      const msg = await ask(nc, `${prefix}.${subject}.${body.appid}`, JSON.stringify(body), attempt);
      const code = msg.headers.get("Nats-Service-Error-Code");
      if (code) throw new Refusal(Number(code), refusalBody(msg, code));
      const reply = msg.json();
      if (!reply || Object.keys(reply).length === 0) throw new Error("the reply is empty");
      return reply;
    } catch (err) {
      if (!(err instanceof Unanswered) || Date.now() + wait >= end) throw err;
    }
    await pause(wait);
  }
}

/** No worker has replied. */
class Unanswered extends Error {}

/**
 * Sends one request, and waits for the reply of a worker. Every reply of a worker has the header Wxkeeper-Reply.
 * Anything else is not the reply: if a stream stores the subject, JetStream's acknowledgement comes first.
 */
function ask(nc, subject, body, timeout) {
  return new Promise((resolve, reject) => {
    const inbox = createInbox(nc.options.inboxPrefix);
    let other = ""; // what arrived, if it is no worker's reply
    const end = (settle, value) => { subscription.unsubscribe(); clearTimeout(timer); settle(value); };
    const subscription = nc.subscribe(inbox, { callback: (err, msg) => {
      if (err) end(reject, err);
      else if (msg.headers?.has("Wxkeeper-Reply")) end(resolve, msg);
      else if (msg.headers?.code === 503 && msg.data.length === 0) end(reject, new Unanswered("no worker listens"));
      else other = `, but something else: ${msg.data.length} bytes without the header Wxkeeper-Reply`;
    } });
    const timer = setTimeout(() => end(reject, new Unanswered(`no worker has replied${other}`)), timeout);
    try {
      nc.publish(subject, body, { reply: inbox });
    } catch (err) {
      end(reject, err);
    }
  });
}

/** The body of a refusal. An error that no worker sent may have only the headers. */
function refusalBody(msg, code) {
  try {
    const body = msg.json();
    if (body.error) return body;
  } catch { /* not JSON */ }
  return { error: `code_${code}`, message: msg.headers.get("Nats-Service-Error") };
}
