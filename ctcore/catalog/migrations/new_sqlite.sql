CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
CREATE TABLE attempt (
	id INTEGER NOT NULL, 
	asset TEXT NOT NULL, 
	partition TEXT NOT NULL, 
	"key" TEXT NOT NULL, 
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
	digest TEXT NOT NULL, ctime_ns BIGINT DEFAULT '0' NOT NULL, 
	PRIMARY KEY (path)
);
CREATE TABLE entity (
	seq INTEGER NOT NULL, 
	level TEXT NOT NULL, 
	id TEXT NOT NULL, 
	parent INTEGER, 
	attributes TEXT NOT NULL, purged INTEGER, 
	PRIMARY KEY (seq), 
	CHECK (level IN ('patient', 'specimen', 'assay')), 
	CONSTRAINT only_patients_have_no_parent CHECK ((level = 'patient') = (parent IS NULL)), 
	FOREIGN KEY(parent) REFERENCES entity (seq) ON DELETE RESTRICT, 
	UNIQUE (level, id)
);
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
CREATE TABLE lease (
	"key" TEXT NOT NULL, 
	asset TEXT NOT NULL, 
	partition TEXT NOT NULL, 
	owner TEXT NOT NULL, 
	job TEXT, 
	run_id TEXT, 
	since TEXT NOT NULL, 
	PRIMARY KEY ("key")
);
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
CREATE TABLE reference (
	"key" TEXT NOT NULL, 
	version TEXT NOT NULL, 
	kind TEXT NOT NULL, 
	path TEXT NOT NULL, 
	digest TEXT NOT NULL, 
	size BIGINT NOT NULL, checked_at TEXT, 
	PRIMARY KEY ("key")
);
CREATE TABLE reported (
	asset TEXT NOT NULL, 
	partition TEXT NOT NULL, 
	data_version TEXT NOT NULL, 
	PRIMARY KEY (asset, partition)
);
CREATE TABLE request (
	asset TEXT NOT NULL, 
	partition TEXT NOT NULL, 
	"key" TEXT NOT NULL, 
	run_key TEXT NOT NULL, 
	tries INTEGER NOT NULL, 
	asked_at TEXT NOT NULL, 
	PRIMARY KEY (asset, partition)
);
CREATE TABLE run (
	id TEXT NOT NULL, 
	started_at TEXT NOT NULL, 
	actor TEXT NOT NULL, 
	asked TEXT NOT NULL, 
	PRIMARY KEY (id)
);
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
	problem TEXT, ctime_ns BIGINT DEFAULT '0' NOT NULL, checked_at TEXT, 
	PRIMARY KEY (entity, role), 
	FOREIGN KEY(entity) REFERENCES entity (seq) ON DELETE RESTRICT
);
CREATE TABLE materialization (
	id INTEGER NOT NULL, 
	asset TEXT NOT NULL, 
	partition TEXT NOT NULL, 
	"key" TEXT NOT NULL, 
	recipe INTEGER NOT NULL, 
	data_version TEXT NOT NULL, 
	folder TEXT NOT NULL, 
	size BIGINT NOT NULL, 
	facts TEXT NOT NULL, 
	reason TEXT NOT NULL, 
	run_id TEXT, 
	started_at TEXT NOT NULL, 
	seconds FLOAT NOT NULL, 
	reported BOOLEAN NOT NULL, rule TEXT, actor TEXT, host TEXT, git TEXT, undeclared TEXT, 
	PRIMARY KEY (id), 
	FOREIGN KEY(recipe) REFERENCES recipe (id)
);
CREATE INDEX materialization_key ON materialization ("key");
CREATE INDEX materialization_node ON materialization (asset, partition);
CREATE TABLE artifact (
	asset TEXT NOT NULL, 
	partition TEXT NOT NULL, 
	materialization INTEGER NOT NULL, 
	recipe INTEGER NOT NULL, 
	data_version TEXT NOT NULL, 
	"key" TEXT NOT NULL, 
	checked_at TEXT, 
	PRIMARY KEY (asset, partition), 
	FOREIGN KEY(materialization) REFERENCES materialization (id)
)
 WITHOUT ROWID

;
CREATE TABLE edge (
	materialization INTEGER NOT NULL, 
	input TEXT NOT NULL, 
	asset TEXT NOT NULL, 
	partition TEXT NOT NULL, 
	version TEXT NOT NULL, 
	PRIMARY KEY (materialization, input, asset, partition), 
	FOREIGN KEY(materialization) REFERENCES materialization (id)
)
 WITHOUT ROWID

;
CREATE INDEX edge_source ON edge (asset, partition);
CREATE TABLE member (
	materialization INTEGER NOT NULL, 
	level TEXT NOT NULL, 
	entity TEXT NOT NULL, 
	role TEXT NOT NULL, 
	PRIMARY KEY (materialization, level, entity), 
	FOREIGN KEY(materialization) REFERENCES materialization (id)
)
 WITHOUT ROWID

;
CREATE TABLE output (
	materialization INTEGER NOT NULL, 
	file TEXT NOT NULL, 
	digest TEXT NOT NULL, 
	size BIGINT NOT NULL, 
	mtime_ns BIGINT NOT NULL, 
	inode BIGINT NOT NULL, ctime_ns BIGINT DEFAULT '0' NOT NULL, 
	PRIMARY KEY (materialization, file), 
	FOREIGN KEY(materialization) REFERENCES materialization (id)
)
 WITHOUT ROWID

;
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
CREATE TABLE slurm_job (
	batch TEXT NOT NULL, 
	"key" TEXT NOT NULL, 
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
	PRIMARY KEY (batch, "key"), 
	FOREIGN KEY(batch) REFERENCES slurm_batch (id)
);
CREATE INDEX slurm_job_ended ON slurm_job (ended_at);
CREATE INDEX slurm_job_key ON slurm_job ("key");
CREATE TABLE acceptance (
	id INTEGER NOT NULL, 
	at TEXT NOT NULL, 
	actor TEXT NOT NULL, 
	undoes BOOLEAN NOT NULL, 
	reason TEXT NOT NULL, 
	PRIMARY KEY (id)
);
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
)
 WITHOUT ROWID

;
CREATE TABLE qc_act (
	id INTEGER NOT NULL, 
	at TEXT NOT NULL, 
	actor TEXT NOT NULL, 
	source TEXT NOT NULL, 
	scope TEXT NOT NULL, 
	PRIMARY KEY (id)
);
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
	"key" TEXT NOT NULL, 
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
CREATE TABLE tombstone (
	materialization INTEGER NOT NULL, 
	purge INTEGER NOT NULL, 
	PRIMARY KEY (materialization), 
	FOREIGN KEY(materialization) REFERENCES materialization (id), 
	FOREIGN KEY(purge) REFERENCES purge (id)
);
CREATE INDEX tombstone_purge ON tombstone (purge);
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
CREATE INDEX reproduction_materialization ON reproduction (materialization);
INSERT INTO alembic_version VALUES ('0013');
