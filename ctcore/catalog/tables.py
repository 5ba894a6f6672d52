"""The tables, as SQLAlchemy Core: the same on SQLite and PostgreSQL, small enough to read in SQL.

Facts are append-only (`event`, `materialization`, `edge`, `member`, `attempt`, `acceptance`, `waiver`, `consent`,
`cohort_rule`, `reference_version`, `result`, the three of QC, `purge` and `tombstone`); the rest are projections of
them, or, like `lease` and the two of Slurm, what is under way.
A node is (asset, partition); registry entities and references are nodes too, so every edge has one shape.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData()

# Numbers are given by ct (`autoincrement=False`): events name them, and a replay has to find the same ones.
entity = Table(
    "entity",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=False, comment="order of registration"),
    Column("level", Text, CheckConstraint("level IN ('patient', 'specimen', 'assay')"), nullable=False),
    Column("id", Text, nullable=False),
    Column("parent", Integer, ForeignKey("entity.seq", ondelete="RESTRICT")),
    Column("attributes", Text, nullable=False, comment="canonical JSON of the declared columns"),
    Column("purged", Integer, comment="the purge that took its attributes away; NULL: none"),
    UniqueConstraint("level", "id"),
    CheckConstraint("(level = 'patient') = (parent IS NULL)", name="only_patients_have_no_parent"),
    Index("entity_parent", "parent"),
)

file = Table(
    "file",
    metadata,
    Column("entity", Integer, ForeignKey("entity.seq", ondelete="RESTRICT"), primary_key=True),
    Column("role", Text, primary_key=True),
    Column("path", Text, nullable=False, comment="relative to the project where it lies inside"),
    Column("digest", Text, nullable=False),
    # PostgreSQL's integer has 32 bits: a file of 2 GiB would be too large for it, and a time in nanoseconds always is.
    Column("size", BigInteger, nullable=False),
    Column("mtime_ns", BigInteger, nullable=False),
    Column("inode", BigInteger, nullable=False),
    Column("problem", Text, comment="why it cannot be read now; NULL where it can"),
    Column("ctime_ns", BigInteger, nullable=False, server_default="0", comment="0: not known, so it is read again"),
    Column("checked_at", Text, comment="when all its bytes were last read; NULL: when it was registered"),
)

reference = Table(
    "reference",
    metadata,
    Column("key", Text, primary_key=True),
    Column("version", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("path", Text, nullable=False),
    Column("digest", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("checked_at", Text, comment="when all its bytes were last read; NULL: when it was recorded"),
)

reference_version = Table(
    "reference_version",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("key", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("path", Text, nullable=False),
    Column("digest", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("at", Text, nullable=False, comment="since when; until the next one of its key"),
    Column("actor", Text, nullable=False),
    Column("reason", Text, comment="why, in the actor's words; NULL: it was seen to be so"),
)

digest_memory = Table(
    "digest_memory",
    metadata,
    Column("path", Text, primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("mtime_ns", BigInteger, nullable=False),
    Column("inode", BigInteger, nullable=False),
    Column("digest", Text, nullable=False),
    Column("ctime_ns", BigInteger, nullable=False, server_default="0", comment="0: not known, so it is read again"),
)

recipe = Table(
    "recipe",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("step", Text, nullable=False),
    Column("code", Text, nullable=False, comment="digest of the step's code"),
    Column("parameters", Text, nullable=False, comment="canonical JSON"),
    Column("environment", Text, nullable=False, comment="canonical JSON"),
    Column("digest", Text, nullable=False, unique=True),
)

materialization = Table(
    "materialization",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("asset", Text, nullable=False),
    Column("partition", Text, nullable=False),
    Column("key", Text, nullable=False, comment="memo key of the call"),
    Column("recipe", Integer, ForeignKey("recipe.id"), nullable=False),
    Column("data_version", Text, nullable=False),
    Column("folder", Text, nullable=False, comment="relative to the store"),
    Column("size", BigInteger, nullable=False),
    Column("facts", Text, nullable=False, comment="canonical JSON of what the step measured"),
    Column("reason", Text, nullable=False, comment="why it was made"),
    Column("run_id", Text),
    Column("started_at", Text, nullable=False),
    Column("seconds", Float, nullable=False),
    Column("reported", Boolean, nullable=False, comment="its Dagster event was logged"),
    Column("rule", Text, comment="version of the cohort's rule that chose its members"),
    Column("actor", Text, comment="who asked for the call"),
    Column("host", Text, comment="where it ran"),
    Column("git", Text, comment="commit of the step's folder; + behind it: with changes that are in none"),
    Column(
        "undeclared", Text, comment="canonical JSON: what it read that the step does not declare; NULL: nobody watched"
    ),
    Index("materialization_key", "key"),
    Index("materialization_node", "asset", "partition"),
)

reproduction = Table(
    "reproduction",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("materialization", Integer, ForeignKey("materialization.id"), nullable=False, comment="what was made again"),
    Column("at", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("run_id", Text),
    Column("host", Text, nullable=False),
    Column("data_version", Text, nullable=False, comment="of the content that came this time"),
    Column("differs", Text, nullable=False, comment="canonical JSON: the files that differ; []: reproduced"),
    Index("reproduction_materialization", "materialization"),
)

cohort_rule = Table(
    "cohort_rule",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("cohort", Text, nullable=False),
    Column("version", Text, nullable=False, comment="digest of the rule; empty: no longer declared"),
    Column("rule", Text, nullable=False, comment="canonical JSON of its normal form"),
    Column("words", Text, nullable=False),
    Column("members", Text, nullable=False, comment="canonical JSON: how many of each level there were then"),
    Column("at", Text, nullable=False),
    Column("actor", Text, nullable=False),
)

output = Table(
    "output",
    metadata,
    Column("materialization", Integer, ForeignKey("materialization.id"), primary_key=True),
    Column("file", Text, primary_key=True),
    Column("digest", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("mtime_ns", BigInteger, nullable=False),
    Column("inode", BigInteger, nullable=False),
    Column("ctime_ns", BigInteger, nullable=False, server_default="0", comment="0: not known, so it is read again"),
    # Rows lie in the tree of the primary key itself, so a look-up by it goes through one tree and not two
    # (sqlite.org/withoutrowid.html).
    sqlite_with_rowid=False,
)

edge = Table(
    "edge",
    metadata,
    Column("materialization", Integer, ForeignKey("materialization.id"), primary_key=True),
    Column("input", Text, primary_key=True, comment="the input's name in the step"),
    Column("asset", Text, primary_key=True),
    Column("partition", Text, primary_key=True),
    Column("version", Text, nullable=False, comment="the input's data version as it was used"),
    Index("edge_source", "asset", "partition"),
    sqlite_with_rowid=False,
)

member = Table(
    "member",
    metadata,
    Column("materialization", Integer, ForeignKey("materialization.id"), primary_key=True),
    Column("level", Text, primary_key=True),
    Column("entity", Text, primary_key=True),
    Column("role", Text, nullable=False),
    sqlite_with_rowid=False,
)

artifact = Table(
    "artifact",
    metadata,
    Column("asset", Text, primary_key=True),
    Column("partition", Text, primary_key=True),
    Column("materialization", Integer, ForeignKey("materialization.id"), nullable=False),
    # These three stand in the making too. Here, one scan of a small table tells the present state of all nodes.
    Column("recipe", Integer, nullable=False),
    Column("data_version", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("checked_at", Text, comment="when all its bytes were last read"),
    sqlite_with_rowid=False,
)

damage = Table(
    "damage",
    metadata,
    Column("asset", Text, primary_key=True),
    Column("partition", Text, primary_key=True),
    Column("file", Text, primary_key=True),
    Column("problem", Text, nullable=False),
    Column("found_at", Text, nullable=False),
)

acceptance = Table(
    "acceptance",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("at", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("undoes", Boolean, nullable=False, comment="it takes waivers back"),
    Column("reason", Text, nullable=False, comment="why, in the actor's words"),
)

waiver = Table(
    "waiver",
    metadata,
    Column("asset", Text, primary_key=True),
    Column("partition", Text, primary_key=True),
    Column("materialization", Integer, ForeignKey("materialization.id"), primary_key=True, comment="holds for it only"),
    Column("evidence", Text, primary_key=True, comment="what exactly is waived: the reason's evidence"),
    Column("acceptance", Integer, ForeignKey("acceptance.id"), primary_key=True),
    Column("kind", Text, nullable=False),
    Column("words", Text, nullable=False, comment="the reason as it was shown"),
    Column("undone", Integer, ForeignKey("acceptance.id"), comment="by which it was taken back; NULL: it stands"),
    sqlite_with_rowid=False,
)

qc_act = Table(
    "qc_act",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("at", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("source", Text, nullable=False, comment="manual, the sheet, or the step that said it"),
    Column("scope", Text, nullable=False, comment="who was meant, as it was said: a batch ends together"),
)

qc_event = Table(
    "qc_event",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("act", Integer, ForeignKey("qc_act.id"), nullable=False),
    Column("entity", Integer, ForeignKey("entity.seq", ondelete="RESTRICT"), nullable=False),
    Column("kind", Text, nullable=False),
    Column("status", Text, nullable=False, comment="warn, censored or fail: what the kind meant then"),
    Column("step", Text, comment="it holds for this step only; NULL: for all"),
    Column("reason", Text, nullable=False),
    Column("materialization", Integer, comment="the making that said it"),
    Index("qc_event_entity", "entity"),
)

qc_resolution = Table(
    "qc_resolution",
    metadata,
    Column("event", Integer, ForeignKey("qc_event.id"), primary_key=True, autoincrement=False),
    Column("act", Integer, ForeignKey("qc_act.id"), nullable=False),
    Column("reason", Text, nullable=False),
)

consent = Table(
    "consent",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("entity", Integer, ForeignKey("entity.seq", ondelete="RESTRICT"), nullable=False),
    Column("status", Text, nullable=False),
    Column("uses", Text, nullable=False, comment="canonical JSON: what it is limited to"),
    Column("dated", Text, nullable=False, comment="the day of the statement"),
    Column("until", Text, comment="the day on which it ends by itself"),
    Column("form", Text, comment="where it is written"),
    Column("reason", Text, nullable=False),
    Column("record", Text, comment="canonical JSON: on whose authority a revocation is reversed"),
    Column("at", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Index("consent_entity", "entity"),
)

result = Table(
    "result",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("entity", Integer, ForeignKey("entity.seq", ondelete="RESTRICT"), nullable=False),
    Column("analysis", Text, nullable=False),
    Column("run", Text, nullable=False, comment="which of several; the empty text where there is one"),
    Column("version", Integer, nullable=False, comment="1, 2, …; the highest one holds"),
    Column("facts", Text, nullable=False, comment="canonical JSON of the columns"),
    Column("reason", Text, nullable=False, comment="why it differs from the version before"),
    Column("source", Text, nullable=False, comment="the sheet, or by name"),
    Column("at", Text, nullable=False),
    Column("actor", Text, nullable=False),
    UniqueConstraint("entity", "analysis", "run", "version"),
)

purge = Table(
    "purge",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("patient", Text, nullable=False),
    Column("at", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("raw", Boolean, nullable=False, comment="raw files inside the project go too"),
    Column("ended_at", Text, comment="when the last file was gone; NULL: files may be left"),
)

tombstone = Table(
    "tombstone",
    metadata,
    Column("materialization", Integer, ForeignKey("materialization.id"), primary_key=True, autoincrement=False),
    Column("purge", Integer, ForeignKey("purge.id"), nullable=False),
    Index("tombstone_purge", "purge"),
)

lease = Table(
    "lease",
    metadata,
    Column("key", Text, primary_key=True),
    Column("asset", Text, nullable=False),
    Column("partition", Text, nullable=False),
    # Two, because a worker outlives its run: the key is free only when neither lives (`leases.take`).
    Column("owner", Text, nullable=False, comment="process that waits for the call: host:pid:start"),
    Column("job", Text, comment="process that works on it"),
    Column("run_id", Text),
    Column("since", Text, nullable=False),
)

attempt = Table(
    "attempt",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("asset", Text, nullable=False),
    Column("partition", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("run_id", Text),
    Column("ended_at", Text, nullable=False),
    Column("error", Text, nullable=False),
    Column("log", Text),
    Index("attempt_node", "asset", "partition"),
)

slurm_batch = Table(
    "slurm_batch",
    metadata,
    Column("id", Text, primary_key=True, comment="the array's job name in Slurm"),
    Column("asset", Text, nullable=False),
    Column("profile", Text, nullable=False),
    Column("run_id", Text),
    Column("cpus", Integer, nullable=False, comment="asked for, a job"),
    Column("memory_mb", Integer, nullable=False, comment="asked for, a job"),
    Column("minutes", Integer, nullable=False, comment="asked for, a job"),
    Column("job", Text, comment="the array's number in Slurm; NULL: not known to be submitted"),
    Column("intended_at", Text, nullable=False),
)

slurm_job = Table(
    "slurm_job",
    metadata,
    Column("batch", Text, ForeignKey("slurm_batch.id"), primary_key=True),
    Column("key", Text, primary_key=True, comment="memo key of the call"),
    Column("idx", Integer, nullable=False, comment="index in the array"),
    Column("partition", Text, nullable=False),
    Column("call", Text, nullable=False, comment="name of its call and result files"),
    Column("tries", Integer, nullable=False, comment="the which try this is"),
    Column("requeues", Integer, nullable=False, comment="tries that were the cluster's fault"),
    Column("state", Text, nullable=False, comment="what Slurm last said of it"),
    Column("node", Text),
    Column("elapsed_s", Float),
    Column("cpu_s", Float, comment="used"),
    Column("used_mb", Float, comment="the most memory at once"),
    Column("log", Text),
    Column("why", Text, comment="how it was judged"),
    Column("ended_at", Text, comment="when it was judged; NULL: open"),
    Index("slurm_job_key", "key"),
    Index("slurm_job_ended", "ended_at"),
)

request = Table(
    "request",
    metadata,
    Column("asset", Text, primary_key=True),
    Column("partition", Text, primary_key=True),
    Column("key", Text, nullable=False, comment="what was asked for: the verdict's digest"),
    Column("run_key", Text, nullable=False),
    Column("tries", Integer, nullable=False),
    Column("asked_at", Text, nullable=False),
)

reported = Table(
    "reported",
    metadata,
    Column("asset", Text, primary_key=True),
    Column("partition", Text, primary_key=True),
    Column("data_version", Text, nullable=False, comment="what Dagster was last told of a registry node"),
)

run = Table(
    "run",
    metadata,
    Column("id", Text, primary_key=True),
    Column("started_at", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("asked", Text, nullable=False, comment="what was asked for, canonical JSON"),
)

event = Table(
    "event",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("at", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("body", Text, nullable=False, comment="canonical JSON"),
    Column("previous", Text, nullable=False),
    Column("digest", Text, nullable=False, unique=True),
)

setting = Table(
    "setting",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", Text, nullable=False),
)
