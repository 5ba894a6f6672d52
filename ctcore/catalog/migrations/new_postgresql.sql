CREATE TABLE alembic_version (
    version_num VARCHAR(32) NOT NULL, 
    CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
CREATE TABLE attempt (
    id INTEGER NOT NULL, 
    asset TEXT NOT NULL, 
    partition TEXT NOT NULL, 
    key TEXT NOT NULL, 
    run_id TEXT, 
    ended_at TEXT NOT NULL, 
    error TEXT NOT NULL, 
    log TEXT, 
    PRIMARY KEY (id)
);
CREATE INDEX attempt_node ON attempt (asset, partition);
CREATE TABLE damage (
    asset TEXT NOT NULL, 
    partition TEXT NOT NULL, 
    file TEXT NOT NULL, 
    problem TEXT NOT NULL, 
    found_at TEXT NOT NULL, 
    PRIMARY KEY (asset, partition, file)
);
CREATE TABLE digest_memory (
    path TEXT NOT NULL, 
    size BIGINT NOT NULL, 
    mtime_ns BIGINT NOT NULL, 
    inode BIGINT NOT NULL, 
    digest TEXT NOT NULL, 
    PRIMARY KEY (path)
);
CREATE TABLE entity (
    seq INTEGER NOT NULL, 
    level TEXT NOT NULL, 
    id TEXT NOT NULL, 
    parent INTEGER, 
    attributes TEXT NOT NULL, 
    PRIMARY KEY (seq), 
    CHECK (level IN ('patient', 'specimen', 'assay')), 
    CONSTRAINT only_patients_have_no_parent CHECK ((level = 'patient') = (parent IS NULL)), 
    FOREIGN KEY(parent) REFERENCES entity (seq) ON DELETE RESTRICT, 
    UNIQUE (level, id)
);
COMMENT ON COLUMN entity.seq IS 'order of registration';
COMMENT ON COLUMN entity.attributes IS 'canonical JSON of the declared columns';
CREATE INDEX entity_parent ON entity (parent);
CREATE TABLE event (
    seq INTEGER NOT NULL, 
    at TEXT NOT NULL, 
    actor TEXT NOT NULL, 
    kind TEXT NOT NULL, 
    subject TEXT NOT NULL, 
    body TEXT NOT NULL, 
    previous TEXT NOT NULL, 
    digest TEXT NOT NULL, 
    PRIMARY KEY (seq), 
    UNIQUE (digest)
);
COMMENT ON COLUMN event.body IS 'canonical JSON';
CREATE TABLE lease (
    key TEXT NOT NULL, 
    asset TEXT NOT NULL, 
    partition TEXT NOT NULL, 
    owner TEXT NOT NULL, 
    job TEXT, 
    run_id TEXT, 
    since TEXT NOT NULL, 
    PRIMARY KEY (key)
);
COMMENT ON COLUMN lease.owner IS 'process that waits for the call: host:pid:start';
COMMENT ON COLUMN lease.job IS 'process that works on it';
CREATE TABLE recipe (
    id INTEGER NOT NULL, 
    step TEXT NOT NULL, 
    code TEXT NOT NULL, 
    parameters TEXT NOT NULL, 
    environment TEXT NOT NULL, 
    digest TEXT NOT NULL, 
    PRIMARY KEY (id), 
    UNIQUE (digest)
);
COMMENT ON COLUMN recipe.code IS 'digest of the step''s code';
COMMENT ON COLUMN recipe.parameters IS 'canonical JSON';
COMMENT ON COLUMN recipe.environment IS 'canonical JSON';
CREATE TABLE reference (
    key TEXT NOT NULL, 
    version TEXT NOT NULL, 
    kind TEXT NOT NULL, 
    path TEXT NOT NULL, 
    digest TEXT NOT NULL, 
    size BIGINT NOT NULL, 
    PRIMARY KEY (key)
);
CREATE TABLE reported (
    asset TEXT NOT NULL, 
    partition TEXT NOT NULL, 
    data_version TEXT NOT NULL, 
    PRIMARY KEY (asset, partition)
);
COMMENT ON COLUMN reported.data_version IS 'what Dagster was last told of a registry node';
CREATE TABLE request (
    asset TEXT NOT NULL, 
    partition TEXT NOT NULL, 
    key TEXT NOT NULL, 
    run_key TEXT NOT NULL, 
    tries INTEGER NOT NULL, 
    asked_at TEXT NOT NULL, 
    PRIMARY KEY (asset, partition)
);
COMMENT ON COLUMN request.key IS 'what was asked for: the verdict''s digest';
CREATE TABLE run (
    id TEXT NOT NULL, 
    started_at TEXT NOT NULL, 
    actor TEXT NOT NULL, 
    asked TEXT NOT NULL, 
    PRIMARY KEY (id)
);
COMMENT ON COLUMN run.asked IS 'what was asked for, canonical JSON';
CREATE TABLE setting (
    name TEXT NOT NULL, 
    value TEXT NOT NULL, 
    PRIMARY KEY (name)
);
CREATE TABLE file (
    entity INTEGER NOT NULL, 
    role TEXT NOT NULL, 
    path TEXT NOT NULL, 
    digest TEXT NOT NULL, 
    size BIGINT NOT NULL, 
    mtime_ns BIGINT NOT NULL, 
    inode BIGINT NOT NULL, 
    problem TEXT, 
    PRIMARY KEY (entity, role), 
    FOREIGN KEY(entity) REFERENCES entity (seq) ON DELETE RESTRICT
);
COMMENT ON COLUMN file.path IS 'relative to the project where it lies inside';
COMMENT ON COLUMN file.problem IS 'why it cannot be read now; NULL where it can';
CREATE TABLE materialization (
    id INTEGER NOT NULL, 
    asset TEXT NOT NULL, 
    partition TEXT NOT NULL, 
    key TEXT NOT NULL, 
    recipe INTEGER NOT NULL, 
    data_version TEXT NOT NULL, 
    folder TEXT NOT NULL, 
    size BIGINT NOT NULL, 
    facts TEXT NOT NULL, 
    reason TEXT NOT NULL, 
    run_id TEXT, 
    started_at TEXT NOT NULL, 
    seconds FLOAT NOT NULL, 
    reported BOOLEAN NOT NULL, 
    PRIMARY KEY (id), 
    FOREIGN KEY(recipe) REFERENCES recipe (id)
);
COMMENT ON COLUMN materialization.key IS 'memo key of the call';
COMMENT ON COLUMN materialization.folder IS 'relative to the store';
COMMENT ON COLUMN materialization.facts IS 'canonical JSON of what the step measured';
COMMENT ON COLUMN materialization.reason IS 'why it was made';
COMMENT ON COLUMN materialization.reported IS 'its Dagster event was logged';
CREATE INDEX materialization_key ON materialization (key);
CREATE INDEX materialization_node ON materialization (asset, partition);
CREATE TABLE artifact (
    asset TEXT NOT NULL, 
    partition TEXT NOT NULL, 
    materialization INTEGER NOT NULL, 
    recipe INTEGER NOT NULL, 
    data_version TEXT NOT NULL, 
    key TEXT NOT NULL, 
    checked_at TEXT, 
    PRIMARY KEY (asset, partition), 
    FOREIGN KEY(materialization) REFERENCES materialization (id)
);
COMMENT ON COLUMN artifact.checked_at IS 'when all its bytes were last read';
CREATE TABLE edge (
    materialization INTEGER NOT NULL, 
    input TEXT NOT NULL, 
    asset TEXT NOT NULL, 
    partition TEXT NOT NULL, 
    version TEXT NOT NULL, 
    PRIMARY KEY (materialization, input, asset, partition), 
    FOREIGN KEY(materialization) REFERENCES materialization (id)
);
COMMENT ON COLUMN edge.input IS 'the input''s name in the step';
COMMENT ON COLUMN edge.version IS 'the input''s data version as it was used';
CREATE INDEX edge_source ON edge (asset, partition);
CREATE TABLE member (
    materialization INTEGER NOT NULL, 
    level TEXT NOT NULL, 
    entity TEXT NOT NULL, 
    role TEXT NOT NULL, 
    PRIMARY KEY (materialization, level, entity), 
    FOREIGN KEY(materialization) REFERENCES materialization (id)
);
CREATE TABLE output (
    materialization INTEGER NOT NULL, 
    file TEXT NOT NULL, 
    digest TEXT NOT NULL, 
    size BIGINT NOT NULL, 
    mtime_ns BIGINT NOT NULL, 
    inode BIGINT NOT NULL, 
    PRIMARY KEY (materialization, file), 
    FOREIGN KEY(materialization) REFERENCES materialization (id)
);
CREATE TABLE slurm_batch (
    id TEXT NOT NULL, 
    asset TEXT NOT NULL, 
    profile TEXT NOT NULL, 
    run_id TEXT, 
    cpus INTEGER NOT NULL, 
    memory_mb INTEGER NOT NULL, 
    minutes INTEGER NOT NULL, 
    job TEXT, 
    intended_at TEXT NOT NULL, 
    PRIMARY KEY (id)
);
COMMENT ON COLUMN slurm_batch.id IS 'the array''s job name in Slurm';
COMMENT ON COLUMN slurm_batch.cpus IS 'asked for, a job';
COMMENT ON COLUMN slurm_batch.memory_mb IS 'asked for, a job';
COMMENT ON COLUMN slurm_batch.minutes IS 'asked for, a job';
COMMENT ON COLUMN slurm_batch.job IS 'the array''s number in Slurm; NULL: not known to be submitted';
CREATE TABLE slurm_job (
    batch TEXT NOT NULL, 
    key TEXT NOT NULL, 
    idx INTEGER NOT NULL, 
    partition TEXT NOT NULL, 
    call TEXT NOT NULL, 
    tries INTEGER NOT NULL, 
    requeues INTEGER NOT NULL, 
    state TEXT NOT NULL, 
    node TEXT, 
    elapsed_s FLOAT, 
    cpu_s FLOAT, 
    used_mb FLOAT, 
    log TEXT, 
    why TEXT, 
    ended_at TEXT, 
    PRIMARY KEY (batch, key), 
    FOREIGN KEY(batch) REFERENCES slurm_batch (id)
);
COMMENT ON COLUMN slurm_job.key IS 'memo key of the call';
COMMENT ON COLUMN slurm_job.idx IS 'index in the array';
COMMENT ON COLUMN slurm_job.call IS 'name of its call and result files';
COMMENT ON COLUMN slurm_job.tries IS 'the which try this is';
COMMENT ON COLUMN slurm_job.requeues IS 'tries that were the cluster''s fault';
COMMENT ON COLUMN slurm_job.state IS 'what Slurm last said of it';
COMMENT ON COLUMN slurm_job.cpu_s IS 'used';
COMMENT ON COLUMN slurm_job.used_mb IS 'the most memory at once';
COMMENT ON COLUMN slurm_job.why IS 'how it was judged';
COMMENT ON COLUMN slurm_job.ended_at IS 'when it was judged; NULL: open';
CREATE INDEX slurm_job_ended ON slurm_job (ended_at);
CREATE INDEX slurm_job_key ON slurm_job (key);
CREATE TABLE acceptance (
    id INTEGER NOT NULL, 
    at TEXT NOT NULL, 
    actor TEXT NOT NULL, 
    undoes BOOLEAN NOT NULL, 
    reason TEXT NOT NULL, 
    PRIMARY KEY (id)
);
COMMENT ON COLUMN acceptance.undoes IS 'it takes waivers back';
COMMENT ON COLUMN acceptance.reason IS 'why, in the actor''s words';
CREATE TABLE waiver (
    asset TEXT NOT NULL, 
    partition TEXT NOT NULL, 
    materialization INTEGER NOT NULL, 
    evidence TEXT NOT NULL, 
    acceptance INTEGER NOT NULL, 
    kind TEXT NOT NULL, 
    words TEXT NOT NULL, 
    undone INTEGER, 
    PRIMARY KEY (asset, partition, materialization, evidence, acceptance), 
    FOREIGN KEY(acceptance) REFERENCES acceptance (id), 
    FOREIGN KEY(materialization) REFERENCES materialization (id), 
    FOREIGN KEY(undone) REFERENCES acceptance (id)
);
COMMENT ON COLUMN waiver.materialization IS 'holds for it only';
COMMENT ON COLUMN waiver.evidence IS 'what exactly is waived: the reason''s evidence';
COMMENT ON COLUMN waiver.words IS 'the reason as it was shown';
COMMENT ON COLUMN waiver.undone IS 'by which it was taken back; NULL: it stands';
CREATE TABLE qc_act (
    id INTEGER NOT NULL, 
    at TEXT NOT NULL, 
    actor TEXT NOT NULL, 
    source TEXT NOT NULL, 
    scope TEXT NOT NULL, 
    PRIMARY KEY (id)
);
COMMENT ON COLUMN qc_act.source IS 'manual, the sheet, or the step that said it';
COMMENT ON COLUMN qc_act.scope IS 'who was meant, as it was said: a batch ends together';
CREATE TABLE consent (
    id INTEGER NOT NULL, 
    entity INTEGER NOT NULL, 
    status TEXT NOT NULL, 
    uses TEXT NOT NULL, 
    dated TEXT NOT NULL, 
    until TEXT, 
    form TEXT, 
    reason TEXT NOT NULL, 
    record TEXT, 
    at TEXT NOT NULL, 
    actor TEXT NOT NULL, 
    PRIMARY KEY (id), 
    FOREIGN KEY(entity) REFERENCES entity (seq) ON DELETE RESTRICT
);
COMMENT ON COLUMN consent.uses IS 'canonical JSON: what it is limited to';
COMMENT ON COLUMN consent.dated IS 'the day of the statement';
COMMENT ON COLUMN consent.until IS 'the day on which it ends by itself';
COMMENT ON COLUMN consent.form IS 'where it is written';
COMMENT ON COLUMN consent.record IS 'canonical JSON: on whose authority a revocation is reversed';
CREATE INDEX consent_entity ON consent (entity);
CREATE TABLE qc_event (
    id INTEGER NOT NULL, 
    act INTEGER NOT NULL, 
    entity INTEGER NOT NULL, 
    kind TEXT NOT NULL, 
    status TEXT NOT NULL, 
    step TEXT, 
    reason TEXT NOT NULL, 
    materialization INTEGER, 
    PRIMARY KEY (id), 
    FOREIGN KEY(act) REFERENCES qc_act (id), 
    FOREIGN KEY(entity) REFERENCES entity (seq) ON DELETE RESTRICT
);
COMMENT ON COLUMN qc_event.status IS 'warn, censored or fail: what the kind meant then';
COMMENT ON COLUMN qc_event.step IS 'it holds for this step only; NULL: for all';
COMMENT ON COLUMN qc_event.materialization IS 'the making that said it';
CREATE INDEX qc_event_entity ON qc_event (entity);
CREATE TABLE qc_resolution (
    event INTEGER NOT NULL, 
    act INTEGER NOT NULL, 
    reason TEXT NOT NULL, 
    PRIMARY KEY (event), 
    FOREIGN KEY(act) REFERENCES qc_act (id), 
    FOREIGN KEY(event) REFERENCES qc_event (id)
);
CREATE TABLE reference_version (
    number INTEGER NOT NULL, 
    key TEXT NOT NULL, 
    version TEXT NOT NULL, 
    kind TEXT NOT NULL, 
    path TEXT NOT NULL, 
    digest TEXT NOT NULL, 
    size BIGINT NOT NULL, 
    at TEXT NOT NULL, 
    actor TEXT NOT NULL, 
    reason TEXT, 
    PRIMARY KEY (number)
);
COMMENT ON COLUMN reference_version.at IS 'since when; until the next one of its key';
COMMENT ON COLUMN reference_version.reason IS 'why, in the actor''s words; NULL: it was seen to be so';
CREATE TABLE result (
    id INTEGER NOT NULL, 
    entity INTEGER NOT NULL, 
    analysis TEXT NOT NULL, 
    run TEXT NOT NULL, 
    version INTEGER NOT NULL, 
    facts TEXT NOT NULL, 
    reason TEXT NOT NULL, 
    source TEXT NOT NULL, 
    at TEXT NOT NULL, 
    actor TEXT NOT NULL, 
    PRIMARY KEY (id), 
    FOREIGN KEY(entity) REFERENCES entity (seq) ON DELETE RESTRICT, 
    UNIQUE (entity, analysis, run, version)
);
COMMENT ON COLUMN result.run IS 'which of several; the empty text where there is one';
COMMENT ON COLUMN result.version IS '1, 2, …; the highest one holds';
COMMENT ON COLUMN result.facts IS 'canonical JSON of the columns';
COMMENT ON COLUMN result.reason IS 'why it differs from the version before';
COMMENT ON COLUMN result.source IS 'the sheet, or by name';
CREATE TABLE purge (
    id INTEGER NOT NULL, 
    patient TEXT NOT NULL, 
    at TEXT NOT NULL, 
    actor TEXT NOT NULL, 
    reason TEXT NOT NULL, 
    raw BOOLEAN NOT NULL, 
    ended_at TEXT, 
    PRIMARY KEY (id)
);
COMMENT ON COLUMN purge.raw IS 'raw files inside the project go too';
COMMENT ON COLUMN purge.ended_at IS 'when the last file was gone; NULL: files may be left';
CREATE TABLE tombstone (
    materialization INTEGER NOT NULL, 
    purge INTEGER NOT NULL, 
    PRIMARY KEY (materialization), 
    FOREIGN KEY(materialization) REFERENCES materialization (id), 
    FOREIGN KEY(purge) REFERENCES purge (id)
);
CREATE INDEX tombstone_purge ON tombstone (purge);
ALTER TABLE entity ADD COLUMN purged INTEGER;
COMMENT ON COLUMN entity.purged IS 'the purge that took its attributes away; NULL: none';
CREATE TABLE cohort_rule (
    id INTEGER NOT NULL, 
    cohort TEXT NOT NULL, 
    version TEXT NOT NULL, 
    rule TEXT NOT NULL, 
    words TEXT NOT NULL, 
    members TEXT NOT NULL, 
    at TEXT NOT NULL, 
    actor TEXT NOT NULL, 
    PRIMARY KEY (id)
);
COMMENT ON COLUMN cohort_rule.version IS 'digest of the rule; empty: no longer declared';
COMMENT ON COLUMN cohort_rule.rule IS 'canonical JSON of its normal form';
COMMENT ON COLUMN cohort_rule.members IS 'canonical JSON: how many of each level there were then';
ALTER TABLE materialization ADD COLUMN rule TEXT;
COMMENT ON COLUMN materialization.rule IS 'version of the cohort''s rule that chose its members';
ALTER TABLE digest_memory ADD COLUMN ctime_ns BIGINT DEFAULT '0' NOT NULL;
COMMENT ON COLUMN digest_memory.ctime_ns IS '0: not known, so it is read again';
ALTER TABLE file ADD COLUMN ctime_ns BIGINT DEFAULT '0' NOT NULL;
COMMENT ON COLUMN file.ctime_ns IS '0: not known, so it is read again';
ALTER TABLE output ADD COLUMN ctime_ns BIGINT DEFAULT '0' NOT NULL;
COMMENT ON COLUMN output.ctime_ns IS '0: not known, so it is read again';
ALTER TABLE materialization ADD COLUMN actor TEXT;
COMMENT ON COLUMN materialization.actor IS 'who asked for the call';
ALTER TABLE materialization ADD COLUMN host TEXT;
COMMENT ON COLUMN materialization.host IS 'where it ran';
ALTER TABLE materialization ADD COLUMN git TEXT;
COMMENT ON COLUMN materialization.git IS 'commit of the step''s folder; + behind it: with changes that are in none';
ALTER TABLE materialization ADD COLUMN undeclared TEXT;
COMMENT ON COLUMN materialization.undeclared IS 'canonical JSON: what it read that the step does not declare; NULL: nobody watched';
CREATE TABLE reproduction (
    id INTEGER NOT NULL, 
    materialization INTEGER NOT NULL, 
    at TEXT NOT NULL, 
    actor TEXT NOT NULL, 
    run_id TEXT, 
    host TEXT NOT NULL, 
    data_version TEXT NOT NULL, 
    differs TEXT NOT NULL, 
    PRIMARY KEY (id), 
    FOREIGN KEY(materialization) REFERENCES materialization (id)
);
COMMENT ON COLUMN reproduction.materialization IS 'what was made again';
COMMENT ON COLUMN reproduction.data_version IS 'of the content that came this time';
COMMENT ON COLUMN reproduction.differs IS 'canonical JSON: the files that differ; []: reproduced';
CREATE INDEX reproduction_materialization ON reproduction (materialization);
ALTER TABLE file ADD COLUMN checked_at TEXT;
COMMENT ON COLUMN file.checked_at IS 'when all its bytes were last read; NULL: when it was registered';
ALTER TABLE reference ADD COLUMN checked_at TEXT;
COMMENT ON COLUMN reference.checked_at IS 'when all its bytes were last read; NULL: when it was recorded';
INSERT INTO alembic_version VALUES ('0013');
