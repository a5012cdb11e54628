"""An index of the words that are said in svc-sop's videos. The service enters the transcripts that are there already."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0022_sop_spoken_words"
down_revision = "0021_recommend_pictures"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "sop_transcripts",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("video_id", sa.String(length=40), nullable=False),
        sa.Column("lengths", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["video_id"], ["sop_videos.id"], name=op.f("fk_sop_transcripts_video_id_sop_videos"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sop_transcripts")),
        sa.UniqueConstraint("video_id", name=op.f("uq_sop_transcripts_video_id")),
    )
    op.create_table(
        "sop_cue_terms",
        sa.Column("term", sa.String(length=64), nullable=False),
        sa.Column("transcript_id", sa.Integer(), nullable=False),
        sa.Column("places", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["transcript_id"],
            ["sop_transcripts.id"],
            name=op.f("fk_sop_cue_terms_transcript_id_sop_transcripts"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("term", "transcript_id", name=op.f("pk_sop_cue_terms")),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("ix_sop_cue_terms_transcript_id"), "sop_cue_terms", ["transcript_id"])


def downgrade() -> None:
    op.drop_table("sop_cue_terms")
    op.drop_table("sop_transcripts")
