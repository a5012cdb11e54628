"""What is said in svc-sop's videos, cue by cue."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0020_sop_transcripts"
down_revision = "0019_recommend_user_changes"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "sop_transcript_cues",
        sa.Column("video_id", sa.String(length=40), nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("start_s", sa.Float(), nullable=False),
        sa.Column("end_s", sa.Float(), nullable=False),
        sa.Column("words", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["video_id"],
            ["sop_videos.id"],
            name=op.f("fk_sop_transcript_cues_video_id_sop_videos"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("video_id", "position", name=op.f("pk_sop_transcript_cues")),
    )


def downgrade() -> None:
    op.drop_table("sop_transcript_cues")
