"""`LazypixField`: a model field that keeps an image, in one column, with all that pages need to know of it."""

from __future__ import annotations

from typing import Any

from django.core import checks
from django.core.exceptions import EmptyResultSet, FieldError, ValidationError
from django.db import connections, models
from django.db.models import lookups, signals
from django.db.models.query_utils import DeferredAttribute

from lazypix.contrib.django import forms
from lazypix.contrib.django.keeping import remove_on_commit
from lazypix.contrib.django.values import NewImage, StoredImage, beginning, read, value_of, written
from lazypix.errors import BadIdent, LazypixError
from lazypix.keys import check_ident
from lazypix.references import ImageReference

COLUMN_CHARS = 512
"""Enough for the longest ident with everything that is known of its image."""

_ASSIGNED, _BEFORE = "lazypix_assigned", "lazypix_before"  # names in a row's `_state`


class ImageAttribute(DeferredAttribute):
    """The attribute of a row: makes a `StoredImage` or `NewImage` of what is assigned."""

    def __set__(self, instance: models.Model, given: object) -> None:
        name = self.field.attname
        value = given if hasattr(given, "resolve_expression") else value_of(given)
        changed = instance.__dict__.get(name, self) is not value  # forms assign again what is there
        instance.__dict__[name] = value
        if changed and not instance._state.adding:
            vars(instance._state).setdefault(_ASSIGNED, set()).add(name)


class _Saving:
    """A value on its way into a statement: where it goes is known only then."""

    def __init__(self, field: LazypixField, row: models.Model, value: StoredImage | None, *, adding: bool) -> None:
        self._field, self._row, self.value = field, row, value
        self._replaces = not adding and field.was_assigned(row)

    def begin(self, using: str, *, atomic: bool) -> None:
        """Note what the row had before, and let the transaction decide about what is new."""
        before = self._field.of_row(self._row, using) if self._replaces else None
        vars(self._row._state).setdefault(_BEFORE, {})[self._field.attname] = before
        if atomic and self.value is not None and self.value.origin is not None:
            self.value.origin.entrust(using)


class LazypixField(models.Field):
    """Keeps one image: in the library the image, in a column of text its `ImageReference` as JSON.

    What is assigned is verified and stored when the row is saved, before the statement. If the transaction is rolled
    back it is removed again. What the row had before, and what a deleted row had, is removed after the commit, unless
    another row names the same image, or the field says `removes=False`.
    """

    descriptor_class = ImageAttribute
    keeps_images = True
    description = "An image in lazypix"

    def __init__(self, *args: Any, removes: bool = True, **kwargs: Any) -> None:
        kwargs["max_length"] = COLUMN_CHARS
        kwargs.setdefault("db_index", True)  # by ident, each time a row is deleted
        self.removes = removes
        super().__init__(*args, **kwargs)

    def deconstruct(self) -> tuple[str, str, list[Any], dict[str, Any]]:
        name, path, args, kwargs = super().deconstruct()
        del kwargs["max_length"]
        kwargs.pop("db_index", None)
        if not self.db_index:
            kwargs["db_index"] = False
        if not self.removes:
            kwargs["removes"] = False
        return name, path, args, kwargs

    def check(self, **kwargs: Any) -> list[checks.CheckMessage]:
        return [*super().check(**kwargs), *self._check_unique()]

    def _check_unique(self) -> list[checks.CheckMessage]:
        if not self.unique:
            return []
        hint = "The column holds the focal point too; ask whether a row names an image with `__ident`."
        return [checks.Error("unique is not possible for a LazypixField", hint=hint, obj=self, id="lazypix.E010")]

    def get_internal_type(self) -> str:
        return "CharField"

    # --- values ------------------------------------------------------------------------------------------------

    def to_python(self, value: object) -> Any:
        try:
            return value_of(value)
        except (TypeError, LazypixError) as error:
            raise ValidationError(str(error), code="invalid") from None

    def from_db_value(self, value: str | None, *_: object) -> StoredImage | None:
        return read(value) if value else None

    def get_prep_value(self, value: object) -> str | None:
        found = value_of(super().get_prep_value(value))
        if isinstance(found, NewImage):
            raise TypeError(
                f"{found} is not stored yet: assign it to a row and save that; {self.name} cannot be compared with "
                "it, nor can update() or bulk_update() store it"
            )
        if found is None:
            return "" if self.blank and not self.null else None  # as Django's own fields of text
        return written(found.reference)

    def value_to_string(self, obj: models.Model) -> str:
        return self.get_prep_value(self.value_from_object(obj)) or ""

    # --- rows --------------------------------------------------------------------------------------------------

    def pre_save(self, model_instance: models.Model, add: bool) -> Any:
        value = getattr(model_instance, self.attname)
        if hasattr(value, "resolve_expression"):
            return value
        new = value.origin if isinstance(value, StoredImage) else value
        if new is not None:
            focus = value.focus
            value = new.stored() if focus == new.focus else _refocused(new.stored(), focus)
            model_instance.__dict__[self.attname] = value
        return _Saving(self, model_instance, value, adding=add)

    def get_db_prep_save(self, value: Any, connection: Any) -> Any:
        if isinstance(value, _Saving):
            value.begin(connection.alias, atomic=connection.in_atomic_block)
            value = value.value
        return super().get_db_prep_save(value, connection)

    def was_assigned(self, row: models.Model) -> bool:
        """Tell whether the row in the database may have another image than `row`."""
        return row._state.adding or self.attname in vars(row._state).get(_ASSIGNED, ())

    def of_row(self, row: models.Model, using: str) -> StoredImage | None:
        """Return the image that the row has in the database; in a transaction the row is locked."""
        owner = self.model
        rows = models.QuerySet(owner, using=using).filter(pk=row._get_pk_val(owner._meta))
        rows = rows.order_by("pk")  # no order of the model's own: PostgreSQL locks no rows of an outer join
        if connections[using].in_atomic_block:
            rows = rows.select_for_update()  # or two that replace at once would both replace the same
        found = rows.values_list(self.attname, flat=True).first()
        return found if isinstance(found, StoredImage) else None

    # --- forms -------------------------------------------------------------------------------------------------

    def formfield(self, **kwargs: Any) -> Any:
        return super().formfield(**{"form_class": forms.ImageFormField, "max_length": None, **kwargs})

    def save_form_data(self, instance: models.Model, data: object) -> None:
        setattr(instance, self.name, data or None)


def _refocused(image: StoredImage, focus: Any) -> StoredImage:
    return image.without_focus() if focus is None else image.with_focus(focus.x, focus.y)


@LazypixField.register_lookup
class Ident(lookups.StartsWith):
    """`filter(image__ident="0199…")`: the rows that name an image. An index on the column is used."""

    lookup_name = "ident"

    def get_prep_lookup(self) -> str:
        ident = self.rhs.ident if isinstance(self.rhs, StoredImage | ImageReference) else self.rhs
        if not isinstance(ident, str):
            raise FieldError(f"A {type(ident).__name__} is no ident; accepted: text, or the value of such a field")
        try:
            return beginning(check_ident(ident))
        except BadIdent:
            return ""  # no row has it

    def get_rhs_op(self, connection: Any, rhs: str) -> str:
        return str(connection.operators["startswith"]) % rhs

    def as_sql(self, compiler: Any, connection: Any) -> Any:
        if not self.rhs:
            raise EmptyResultSet
        return super().as_sql(compiler, connection)

    def as_sqlite(self, compiler: Any, connection: Any) -> Any:
        """SQLite looks into an index for GLOB, which tells upper from lower case; no ident has its wildcards."""
        if not self.rhs:
            raise EmptyResultSet
        left, parameters = self.process_lhs(compiler, connection)
        return f"{left} GLOB %s", [*parameters, f"{self.rhs}*"]


# --- what happens to rows ----------------------------------------------------------------------------------------


def _fields(model: type[models.Model]) -> list[LazypixField]:
    return [field for field in model._meta.concrete_fields if isinstance(field, LazypixField)]


def _saved(sender: type[models.Model], instance: models.Model, using: str, raw: bool, **_: object) -> None:
    """The statement was carried out; without a transaction that is the commit."""
    before = vars(instance._state).pop(_BEFORE, {})
    for field in [] if raw else _fields(sender):
        if field.attname in before:  # else it was not saved (`update_fields`)
            _settle(field, instance, before[field.attname], using)


def _settle(field: LazypixField, row: models.Model, before: StoredImage | None, using: str) -> None:
    value, connection = row.__dict__.get(field.attname), connections[using]
    if not connection.in_atomic_block and isinstance(value, StoredImage) and value.origin is not None:
        value.origin.keep()
    if before is not None and field.removes and before.ident != getattr(value, "ident", None):
        remove_on_commit(before.ident, using)


def _deleted(sender: type[models.Model], instance: models.Model, using: str, **_: object) -> None:
    """The row is about to be deleted, in a transaction."""
    for field in _fields(sender):
        if field.removes and _owns(sender, field):
            value = getattr(instance, field.attname)  # loaded now, if it is deferred: later it is gone
            if isinstance(value, NewImage) or field.was_assigned(instance):
                value = field.of_row(instance, using)
            if isinstance(value, StoredImage):
                remove_on_commit(value.ident, using)


def _owns(model: type[models.Model], field: LazypixField) -> bool:
    """Tell whether the column is in the model's own table; of a parent's row Django tells by itself."""
    return field.model._meta.concrete_model is model._meta.concrete_model


def _prepared(sender: type[models.Model], **_: object) -> None:
    """Every class that has such a field is listened to, proxies and children too: they send signals of their own."""
    if _fields(sender):
        signals.post_save.connect(_saved, sender=sender, dispatch_uid="lazypix")
        signals.pre_delete.connect(_deleted, sender=sender, dispatch_uid="lazypix")


signals.class_prepared.connect(_prepared, dispatch_uid="lazypix")
