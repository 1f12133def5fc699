// Checks exported GGUF files against llama.cpp: node llamacpp.mjs ENV CASE_DIR...
//
// ENV is a folder in which node-llama-cpp is installed. A case folder holds
//     model.gguf         what mlaconvert exported, in float32
//     q8_0.gguf          the same as q8_0
//     ids.npy            token ids [sequences, length]
//     mla_logits.npy     mlaconvert's own forward pass on ids: float32, [sequences, length, vocab], flat
//     mla_greedy.npy     the tokens that it continues the first half of each sequence with: int32, [sequences, tokens], flat
//     tokens.jsonl       lines {"text", "ids"}: mlaconvert's own tokenizer, without special tokens around the text; optional
//
// Prints one line a check and "N passed, N failed" at the end; exits 1 if a check failed. Without a case it only loads the engine.
import {readFileSync, existsSync} from "node:fs";
import {basename, join, resolve} from "node:path";
import {pathToFileURL} from "node:url";

const PROBABILITY_TOLERANCE = 1e-3;
const Q8_KL = 0.05; // 8-bit weights cost thousandths of nats; a tensor laid out wrong costs whole ones

const [env, ...cases] = process.argv.slice(2);
const entry = pathToFileURL(join(resolve(env), "node_modules/node-llama-cpp/dist/index.js"));
const {getLlama, LlamaLogLevel} = await import(entry);
const version = JSON.parse(readFileSync(join(env, "node_modules/node-llama-cpp/package.json"))).version;

class CheckFailed extends Error {}

function need(condition, message) {
    if (!condition) throw new CheckFailed(message);
}

// readNpy returns the shape and the elements of a .npy file of int32 or float32 in C order.
function readNpy(file) {
    const bytes = readFileSync(file);
    const wide = bytes[6] >= 2;
    const start = (wide ? 12 : 10) + (wide ? bytes.readUInt32LE(8) : bytes.readUInt16LE(8));
    const header = bytes.toString("latin1", 10, start);
    const type = /'descr': *'([^']*)'/.exec(header)[1];
    need(type === "<i4" || type === "<f4", `${file} holds ${type}`);
    need(/'fortran_order': *False/.test(header), `${file} is in Fortran order`);
    const shape = /'shape': *\(([^)]*)\)/.exec(header)[1].split(",").filter((s) => s.trim()).map(Number);
    const data = bytes.buffer.slice(bytes.byteOffset + start, bytes.byteOffset + bytes.length);
    return {shape, data: type === "<i4" ? new Int32Array(data) : new Float32Array(data)};
}

function softmax(logits) {
    const most = logits.reduce((a, b) => Math.max(a, b), -Infinity);
    const e = Array.from(logits, (x) => Math.exp(x - most));
    const sum = e.reduce((a, b) => a + b, 0);
    return e.map((x) => x / sum);
}

const llama = await getLlama({
    gpu: false, build: "never", skipDownload: true, progressLogs: false, logLevel: LlamaLogLevel.error,
});

// withSequence runs f on a fresh context of a model, with room for length tokens and the next: a full context drops its first
// tokens. The cache is float32, so that what differs is not its rounding.
async function withSequence(file, length, f) {
    const model = await llama.loadModel({modelPath: file});
    try {
        const context = await model.createContext({
            contextSize: length + 1, batchSize: length, sequences: 1, threads: 1,
            experimentalKvCacheKeyType: "F32", experimentalKvCacheValueType: "F32", ignoreMemorySafetyChecks: true,
        });
        try {
            return await f(context.getSequence(), model);
        } finally {
            await context.dispose();
        }
    } finally {
        await model.dispose();
    }
}

// logitsOf evaluates tokens and returns the logits behind each of them.
async function logitsOf(sequence, tokens, vocab) {
    const out = await sequence.controlledEvaluate(tokens.map((t) => [t, {generateNext: {logits: true}}]));
    return Array.from(tokens, (_, i) => {
        const row = new Float64Array(vocab).fill(NaN);
        for (const [token, logit] of out[i].next.logits) row[token] = logit;
        return row;
    });
}

class Case {
    constructor(folder) {
        this.folder = folder;
        const ids = readNpy(join(folder, "ids.npy"));
        [this.sequences, this.length] = ids.shape;
        this.ids = Array.from({length: this.sequences}, (_, s) => Array.from(ids.data.slice(s * this.length, (s + 1) * this.length)));
        this.logits = readNpy(join(folder, "mla_logits.npy")).data;
        this.vocab = this.logits.length / (this.sequences * this.length);
        this.greedy = readNpy(join(folder, "mla_greedy.npy")).data;
        this.new = this.greedy.length / this.sequences;
    }

    ours(s, i) {
        const at = (s * this.length + i) * this.vocab;
        return softmax(this.logits.slice(at, at + this.vocab));
    }

    // differences runs all sequences and returns the largest difference of a probability and the mean KL(ours || theirs).
    async differences(file) {
        let worst = 0, kl = 0;
        await withSequence(join(this.folder, file), this.length, async (sequence) => {
            for (let s = 0; s < this.sequences; s++) {
                await sequence.clearHistory();
                const theirs = await logitsOf(sequence, this.ids[s], this.vocab);
                theirs.forEach((row, i) => {
                    const p = this.ours(s, i), q = softmax(row);
                    for (let t = 0; t < this.vocab; t++) {
                        const d = Math.abs(p[t] - q[t]);
                        need(Number.isFinite(d), `no finite probability of token ${t} at ${s}, ${i}`);
                        worst = Math.max(worst, d);
                        if (p[t] > 0) kl += p[t] * Math.log(p[t] / Math.max(q[t], 1e-300));
                    }
                });
            }
        });
        return {worst, kl: kl / (this.sequences * this.length)};
    }

    async probabilities() {
        const {worst, kl} = await this.differences("model.gguf");
        const told = `largest difference of a next-token probability ${worst.toExponential(1)}, mean KL ${kl.toExponential(1)}`;
        need(worst <= PROBABILITY_TOLERANCE, `${told}, allowed ${PROBABILITY_TOLERANCE}`);
        return told;
    }

    // greedy continues the first half of each sequence, one token at a time against the cache.
    async greedy_() {
        const half = Math.floor(this.length / 2);
        await withSequence(join(this.folder, "model.gguf"), half + this.new, async (sequence) => {
            for (let s = 0; s < this.sequences; s++) {
                await sequence.clearHistory();
                let next = this.ids[s].slice(0, half);
                const got = [];
                while (got.length < this.new) {
                    const rows = await logitsOf(sequence, next, this.vocab);
                    const last = rows[rows.length - 1];
                    next = [last.indexOf(last.reduce((a, b) => Math.max(a, b), -Infinity))];
                    got.push(next[0]);
                }
                const want = Array.from(this.greedy.slice(s * this.new, (s + 1) * this.new));
                need(String(got) === String(want), `sequence ${s}: ${got}, expected ${want}`);
            }
        });
        return `${this.sequences} x ${this.new} tokens equal`;
    }

    async q8_0() {
        const {worst, kl} = await this.differences("q8_0.gguf");
        const told = `mean KL to ours in float32 ${kl.toExponential(1)}, largest difference of a probability ${worst.toExponential(1)}`;
        need(kl <= Q8_KL, `${told}, allowed mean KL ${Q8_KL}`);
        return told;
    }

    async tokenizer() {
        const lines = readFileSync(join(this.folder, "tokens.jsonl"), "utf8").split("\n").filter(Boolean).map((l) => JSON.parse(l));
        const model = await llama.loadModel({modelPath: join(this.folder, "model.gguf"), vocabOnly: true});
        try {
            for (const {text, ids} of lines) {
                const got = Array.from(model.tokenize(text, true));
                need(String(got) === String(ids), `${JSON.stringify(text)}: ${got}, expected ${ids}`);
            }
        } finally {
            await model.dispose();
        }
        return `${lines.length} texts`;
    }
}

console.log(`node-llama-cpp ${version}, llama.cpp ${llama.llamaCppRelease.release}`);
let passed = 0, failed = 0;
for (const folder of cases) {
    for (const name of ["probabilities", "greedy", "q8_0", "tokenizer"]) {
        if (name === "tokenizer" && !existsSync(join(folder, "tokens.jsonl"))) continue;
        try {
            const c = new Case(folder);
            const told = await (name === "greedy" ? c.greedy_() : c[name]());
            passed++;
            console.log(`ok   ${basename(folder)} llama.cpp ${name}: ${told}`);
        } catch (error) {
            failed++;
            console.log(`FAIL ${basename(folder)} llama.cpp ${name}: ${error instanceof CheckFailed ? error.message : error.stack}`);
        }
    }
}
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed > 0 ? 1 : 0);
