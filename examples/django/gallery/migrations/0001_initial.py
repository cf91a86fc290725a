"""The table of photos."""

from __future__ import annotations

from django.db import migrations, models

import lazypix.contrib.django.fields


class Migration(migrations.Migration):
    """Makes it."""

    initial = True
    dependencies = ()
    operations = (
        migrations.CreateModel(
            name="Photo",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("title", models.CharField(max_length=100)),
                ("image", lazypix.contrib.django.fields.LazypixField()),
            ],
            options={"ordering": ("-pk",)},
        ),
    )
