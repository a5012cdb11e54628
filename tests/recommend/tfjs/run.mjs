// Runs an export in Node: node run.mjs FOLDER < {"inputs": {name: rows}, "users": [{history, profile}]}  → vectors and lists as JSON.
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import * as tf from "@tensorflow/tfjs";

const folder = process.argv[2];
const asked = JSON.parse(await new Response(process.stdin).text());
await tf.setBackend("cpu");
const { UserTower } = await import(pathToFileURL(join(folder, "user_tower.mjs")));
const read = async (base, name) => new Uint8Array(await readFile(join(base, name))).buffer;
const tower = await UserTower.load(tf, folder, read);
const tensors = tower.model.inputs.map((input, n) =>
  tf.tensor2d(asked.inputs[tower.model.inputNames[n]], undefined, input.dtype),
);
const batch = tower.model.predict(tensors).arraySync();
const vectors = asked.users.map(({ history, profile }) => [...tower.vector(history, profile)]);
const lists = asked.users.map(({ history }, n) =>
  tower.rank(vectors[n], { history, k: 5, exclude: history.map((event) => event.item_id) }),
);
const foreseen = vectors.map((vector) => tower.predict(vector, tower.items.ids[7]));
process.stdout.write(JSON.stringify({ batch, vectors, lists, foreseen, backend: tf.getBackend(), version: tf.version.tfjs }));
