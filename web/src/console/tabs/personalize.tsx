/** Personalize: dataset groups and what is in them, jobs, and the events forwarded to AWS. */

import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import { Forwarding } from "../../shop/forwarding";
import { ask, when } from "../ask";
import { Problem, counted, useGuard } from "../parts";
import type { TabProps } from "../tab";

type Row = Record<string, string | number | null | undefined>;

const EVERY_MS = 5000;

/** The answer of an operation of Amazon Personalize's API. */
const call = async (operation: string, body: object): Promise<Record<string, Row[]>> => {
  const response = await fetch("personalize", {
    method: "POST",
    signal: AbortSignal.timeout(10_000),
    headers: { "content-type": "application/x-amz-json-1.1", "x-amz-target": `AmazonPersonalize.${operation}` },
    body: JSON.stringify(body),
  });
  const read = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(read.message ?? `${operation}: the API answered ${response.status}.`);
  return read;
};

/** Lists by their heading: the operation, the member of its answer, and whether it is of one group. */
const KINDS: readonly [string, string, string, "group" | "solutions" | "trackers"][] = [
  ["Datasets", "ListDatasets", "datasets", "group"],
  ["Solutions", "ListSolutions", "solutions", "group"],
  ["Recommenders", "ListRecommenders", "recommenders", "group"],
  ["Campaigns", "ListCampaigns", "campaigns", "solutions"],
  ["Filters", "ListFilters", "Filters", "group"],
  ["Event trackers", "ListEventTrackers", "eventTrackers", "group"],
];
const JOBS: readonly [string, string, string][] = [
  ["Import", "ListDatasetImportJobs", "datasetImportJobs"],
  ["Export", "ListDatasetExportJobs", "datasetExportJobs"],
  ["Batch inference", "ListBatchInferenceJobs", "batchInferenceJobs"],
  ["Batch segments", "ListBatchSegmentJobs", "batchSegmentJobs"],
  ["Deletion", "ListDataDeletionJobs", "dataDeletionJobs"],
  ["Training", "ListSolutionVersions", "solutionVersions"],
];

const arnOf = (row: Row): string => String(Object.entries(row).find(([name]) => name.endsWith("Arn"))?.[1] ?? "");
const nameOf = (row: Row): string =>
  String(row.name ?? row.jobName ?? Object.entries(row).find(([name]) => name.endsWith("Name"))?.[1] ?? arnOf(row).split("/").at(-1));

const Status = ({ text }: { text: unknown }): JSX.Element => {
  const status = String(text ?? "");
  const kind = /FAILED/.test(status) ? "bad" : /ACTIVE/.test(status) ? "good" : "";
  return <span class={`status ${kind}`}>{status.toLowerCase()}</span>;
};

const Table = ({ title, rows }: { title: string; rows: readonly Row[] }): JSX.Element => (
  <section aria-label={title}>
    <h3>{title} <small>{rows.length}</small></h3>
    <div class="wide" role="region" aria-label={title} tabIndex={0}>
      <table>
        <thead><tr><th>Name</th><th>Status</th><th>Changed</th></tr></thead>
        <tbody>
          {rows.map((row) => (
            <tr key={arnOf(row)} title={arnOf(row)}>
              <td>{nameOf(row)}</td>
              <td><Status text={row.status} /></td>
              <td>{when(Number(row.lastUpdatedDateTime) || null)}{row.failureReason ? `: ${row.failureReason}` : ""}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  </section>
);

const isOver = (row: Row): boolean => /ACTIVE|FAILED|STOPPED/.test(String(row.status ?? ""));

/** What unfinished jobs have done so far, by the end of their ARN; nothing for a caller who may not know. */
const readProgress = async (): Promise<Map<string, string>> => {
  const { jobs } = (await ask<{ jobs: string[] }>("GET", "/status")).body;
  return new Map(jobs.map((text) => {
    const [path, ...rest] = text.split(": ");
    return [path!, rest.join(": ").split(", ").slice(1).join(", ")];
  }));
};

/** The tab of Amazon Personalize's API. */
export const Personalize = ({ client }: TabProps): JSX.Element => {
  const [groups, setGroups] = useState<Row[]>([]);
  const [picked, setPicked] = useState("");
  const [lists, setLists] = useState<Record<string, Row[]>>({});
  const [jobs, setJobs] = useState<Row[]>([]);
  const [progress, setProgress] = useState<ReadonlyMap<string, string>>(new Map());
  const [error, guard] = useGuard();
  useEffect(() => {
    const read = async (): Promise<void> => {
      setGroups((await call("ListDatasetGroups", { maxResults: 100 })).datasetGroups ?? []);
      const found = await Promise.all(
        JOBS.map(async ([kind, operation, member]) =>
          ((await call(operation, { maxResults: 100 }))[member] ?? []).map((row) => ({ ...row, kind }))),
      );
      const changed = (row: Row): number => Number(row.lastUpdatedDateTime ?? row.creationDateTime ?? 0);
      const all = found.flat().sort((one, other) => changed(other) - changed(one));
      setJobs(all);
      // It takes a second of reading, so only where there is something to tell.
      setProgress(all.every(isOver) ? new Map() : await readProgress().catch(() => new Map()));
    };
    guard(read);
    const timer = setInterval(() => document.hidden || guard(read), EVERY_MS);
    return () => clearInterval(timer);
  }, []);
  const empty = KINDS.map(([title]) => title).filter((title) => lists[title]?.length === 0);
  const address = new URL("personalize", document.baseURI).href;
  const group = picked || (groups[0] && arnOf(groups[0])) || "";
  useEffect(() => {
    if (!group) return;
    guard(async () => {
      const asked: Record<string, Row[]> = {};
      for (const [title, operation, member, kind] of KINDS)
        if (kind === "solutions") {
          const of = (asked.Solutions ?? []).map((row) => call(operation, { solutionArn: arnOf(row) }));
          asked[title] = (await Promise.all(of)).flatMap((answer) => answer[member] ?? []);
        } else asked[title] = (await call(operation, { datasetGroupArn: group }))[member] ?? [];
      setLists(asked);
    });
  }, [group]);
  return (
    <>
      <Problem text={error} />
      <section aria-labelledby="groups-title">
        <h2 id="groups-title">{counted(groups.length, "dataset group")}</h2>
        {groups.length === 0 && (
          <p class="note">
            Programs that use boto3 or an AWS SDK make them under <code>/personalize</code>; the events of this page are of the
            group in the settings, which is always there.
          </p>
        )}
        <p class="line">
          {groups.map((row) => (
            <button
              key={arnOf(row)} type="button" aria-pressed={arnOf(row) === group} onClick={() => setPicked(arnOf(row))}
            >
              {nameOf(row)}
            </button>
          ))}
        </p>
        {group && (
          <>
            <div class="halves">
              {KINDS.filter(([title]) => lists[title]?.length).map(([title]) => <Table key={title} title={title} rows={lists[title]!} />)}
            </div>
            {empty.length > 0 && (
              <p class="note" id="none">
                None yet: {empty.join(", ").toLowerCase()}. Programs make them with boto3 or an AWS SDK, at <code>{address}</code>.
              </p>
            )}
          </>
        )}
      </section>
      <section aria-labelledby="jobs-title">
        <h2 id="jobs-title">{counted(jobs.length, "job")}</h2>
        {jobs.length === 0 && <p class="note">Imports, exports, batches, deletions and trainings stand here with their progress.</p>}
        {jobs.length > 0 && (
          <div class="wide" role="region" aria-label="Jobs" tabIndex={0}>
            <table id="jobs">
              <thead><tr><th>Job</th><th>Kind</th><th>Status</th><th>Progress</th><th>Changed</th></tr></thead>
              <tbody>
                {jobs.map((row) => (
                  <tr key={arnOf(row) + row.kind}>
                    <td>{nameOf(row)}</td>
                    <td>{row.kind}</td>
                    <td><Status text={row.status} /></td>
                    <td>{progress.get(arnOf(row).split(":").slice(5).join(":")) ?? ""}</td>
                    <td>{when(Number(row.lastUpdatedDateTime) || null)}{row.failureReason ? `: ${row.failureReason}` : ""}</td>
                  </tr>
                ))}
              </tbody>
            </table>
          </div>
        )}
      </section>
      <Forwarding client={client}>
        <p class="note">Nothing: no <code>recommender forward</code> is running that sends events on to AWS.</p>
      </Forwarding>
    </>
  );
};
