"""Templates of a new project: ct.toml for a kind of cohort, and a sheet with its columns."""

from dataclasses import dataclass

from ctcore.config.editor_schema import DIRECTIVE

_HEAD = """\
# The declaration of this project. ct checks all of it whenever it reads it; `ct status` shows the result.
[project]
id = "{id}"
# sheet = "samplesheet.csv"       # watched by the sheet sensor; otherwise the sheet registered last

# Columns of each level: type = text | integer | real | boolean | date, required = true, unique = true,
# enum = ["a", "b"], default = "a". What is declared is enforced in the catalog: `ct schema diff`, docs/schema.md
"""

_TAIL = """
[steps]
folders = ["steps"]               # add "ct_assets/steps" for the reference pipeline

# [params.my_step]
# threshold = 20.0

# Sheets of others: their name of a column = ours
# [sheet.map]
# "Sample Name" = "specimen_id"

# Their words for values of a column = ours; `ct register` says how many cells had which word
[sheet.values]
sex = { XX = "F", XY = "M", female = "F", male = "M", NA = "unknown" }
{status}
[run]
workers = 0                       # local worker processes; 0 = one a core
"""

_REFERENCE = """
# Outside files that steps use. A new version or other content makes stale all results of the old one.
# [references.genome]
# path = "reference/genome.fa"
# version = "GRCh38"
# kind = "genome"

# [regions.panel]
# reference = "genome"
# bed = "reference/panel.bed"     # or intervals = ["chr17:7661779-7687538"]
"""

_PLAIN = """\
[levels.patient.columns]
sex = { enum = ["F", "M", "unknown"] }

[levels.specimen.columns]
tissue_site = {}

[levels.assay]
files = ["fastq_1", "fastq_2"]

[levels.assay.columns]
assay_type = {}
"""

_TUMOUR_NORMAL = """\
[levels.patient.columns]
sex = { enum = ["F", "M", "unknown"] }
age = { type = "integer", description = "years at diagnosis" }
diagnosis = {}
neoadjuvant = { type = "boolean", description = "treated before surgery" }

[levels.specimen.columns]
status = { enum = ["tumour", "normal"], required = true }
tissue_site = {}
timepoint = { enum = ["diagnosis", "surgery", "relapse"] }
collected_on = "date"
purity = { type = "real", description = "share of tumour cells, 0 to 1" }

[levels.assay]
files = ["fastq_1", "fastq_2", "bam", "bai", "cram", "crai", "table", "vcf"]   # as in nf-core/sarek's sheets

[levels.assay.columns]
assay_type = { enum = ["WGS", "WES", "panel", "RNA"] }
variantcaller = {}
replicate = { type = "integer", default = 1 }
"""

_TRIO = """\
[levels.patient.columns]
family = { required = true }
role = { enum = ["proband", "father", "mother", "sibling", "other"] }
father = { description = "ID of the father, where he is in the cohort" }
mother = { description = "ID of the mother, where she is in the cohort" }
sex = { enum = ["F", "M", "unknown"] }
affected = "boolean"

[levels.specimen.columns]
specimen_type = { enum = ["blood", "saliva", "buccal", "cell_line"] }

[levels.assay]
files = ["fastq_1", "fastq_2"]

[levels.assay.columns]
assay_type = { enum = ["WGS", "WES", "long_reads"], required = true }
"""

_SHEET_PLAIN = """\
patient_id,sex,specimen_id,tissue_site,assay_id,assay_type,fastq_1,fastq_2
P001,F,P001-S1,blood,P001-S1-L1,WGS,,
"""

_SHEET_TUMOUR_NORMAL = """\
patient_id,sex,age,specimen_id,status,tissue_site,purity,assay_id,assay_type,fastq_1,fastq_2
P001,F,61,P001-T1,tumour,ovary,0.7,P001-T1-WGS,WGS,,
P001,F,61,P001-N1,normal,blood,,P001-N1-WGS,WGS,,
"""

_SHEET_TRIO = """\
patient_id,family,role,father,mother,sex,affected,specimen_id,specimen_type,assay_id,assay_type,fastq_1,fastq_2
P001,FAM1,proband,P002,P003,F,yes,P001-B,blood,P001-B-L1,WGS,,
P002,FAM1,father,,,M,no,P002-B,blood,P002-B-L1,WGS,,
P003,FAM1,mother,,,F,no,P003-B,blood,P003-B-L1,WGS,,
"""


@dataclass(frozen=True)
class Starter:
    """ct.toml with {id} to fill in, and a sheet of made-up IDs without files."""

    toml: str
    sheet: str


def _starter(levels: str, cohorts: str, sheet: str, status: str = "") -> Starter:
    return Starter(f"{DIRECTIVE}{_HEAD}{levels}{_REFERENCE}\n{cohorts}{_TAIL.replace('{status}', status)}", sheet)


STARTERS = {
    "plain": _starter(_PLAIN, "[cohorts.all]\n", _SHEET_PLAIN),
    "tumour-normal": _starter(
        _TUMOUR_NORMAL,
        '[cohorts.all]\npairing = "tumour_normal"\n\n[cohorts.tumours.where]\n"specimen.status" = "tumour"\n\n'
        '[cohorts.normals.where]\n"specimen.status" = "normal"\n\n'
        "# Who has both: `ct cohort --pairing tumour_normal`, `ct run --cohort all --complete-only`; docs/cohorts.md\n"
        '[pairings.tumour_normal]\nby = "specimen.status"\norder = ["normal", "tumour"]\n',
        _SHEET_TUMOUR_NORMAL,
        'status = { 0 = "normal", 1 = "tumour" }\n',
    ),
    "trio": _starter(
        _TRIO,
        '[cohorts.all]\npairing = "trio"\n\n[cohorts.probands.where]\n"patient.role" = "proband"\n\n'
        '[cohorts.affected.where]\n"patient.affected" = true\n\n'
        "# Who has both parents: `ct cohort --pairing trio`, `ct run --cohort all --complete-only`; docs/cohorts.md\n"
        '[pairings.trio]\nwithin = "patient.family"\nby = "patient.role"\norder = ["father", "mother", "proband"]\n',
        _SHEET_TRIO,
    ),
}
SHEET_NAME = "samplesheet.example.csv"
